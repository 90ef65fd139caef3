"""The results schema is a contract: names, order, types and nullability, column by column."""

import pyarrow as pa
import pytest

from equigrid.analysis.report.figures import _sheet_caption
from equigrid.analysis.schema import (
    ARMS,
    DESCRIPTIONS,
    SCHEMA,
    SCHEMA_VERSION,
    SETTING_WORDS,
    SETTINGS,
    to_frame,
)

EXPECTED = """
trial_id string!, attempt string!, status string!, error string, grid string!, dataset string!, fingerprint string!,
arm string!, setting string, generator string, classifier string!, recipe string!, n_total int64!, n_base int64!,
n_nominal int64!, n_real_added int64!, n_syn int64!, n_copies int64!, subset_seed int64!, generator_seed int64,
seed int64!, rev int64!, epochs double, steps int64, top1 double, top5 double, per_class list<element: double>,
confusion list<element: int64>, loss double, val_top1 double, seconds double, images_per_s double,
peak_device_bytes int64, device string, world_size int64, threads int64, shards list<element: string>,
versions map<string, string>, code string, started_at timestamp[us, tz=UTC], finished_at timestamp[us, tz=UTC],
node string, balanced_accuracy double, macro_f1 double, auc double, sensitivity double, specificity double,
energy_kwh double, co2_kg double, by_class list<element: int64>, augmentation string, pretrained string
"""


def test_columns_types_and_nullability():
    def shown(field):
        return f"{field.name} {field.type}{'' if field.nullable else '!'}".replace(
            "item:", "element:"
        )

    assert ", ".join(shown(field) for field in SCHEMA) == " ".join(EXPECTED.split())


def test_metadata_and_descriptions():
    assert SCHEMA.metadata[b"schema_version"] == str(SCHEMA_VERSION).encode() == b"1"
    assert list(DESCRIPTIONS) == SCHEMA.names
    assert all(field.metadata[b"description"] for field in SCHEMA)
    assert ARMS == ("base", "real", "syn", "copies", "mix", "augmentation")


def test_every_setting_has_words():
    assert SETTINGS == ("closed", "open", "adapted") == tuple(SETTING_WORDS)
    told = _sheet_caption([{"generator": "lora", "setting": "adapted", "base": 30}])
    assert "images of lora (open set, adapted, trained on 30 of them)" in told


def test_rows_become_a_frame_and_wrong_types_do_not():
    frame = to_frame([{"trial_id": "a", "top1": 91.5, "per_class": [90.0, 93.0]}])
    assert list(frame.columns) == SCHEMA.names
    assert frame.loc[0, "top1"] == 91.5
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        to_frame([{"trial_id": "a", "top1": "high"}])
