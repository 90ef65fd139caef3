"""The option `keep`: a long tail of a set that has none."""

import numpy as np
import pytest

from equigrid.grid.datasets import catalogue, ingest
from equigrid.grid.errors import UserError


def ingested(store, spec):
    return ingest.ingest(store, catalogue.source(spec))


def test_so_many_training_images_are_kept_and_the_test_set_stays(store, images_of):
    whole = ingested(store, "digits")
    tail = ingested(store, {"digits": None, "keep": {8: 12, "9": 6}})
    assert tail.shape.train_counts == (*whole.shape.train_counts[:8], 12, 6)
    labels = catalogue.labels(store, tail, "train")
    assert (np.bincount(labels) == tail.shape.train_counts).all()
    kept, every = images_of(store, tail.train), images_of(store, whole.train)
    known = {image.tobytes() for image in every[catalogue.labels(store, whole, "train") == 9]}
    nines = {image.tobytes() for image in kept[labels == 9]}
    assert len(nines) == 6 and nines < known
    assert [ref.checksum for ref in tail.test] == [ref.checksum for ref in whole.test]
    assert tail.fingerprint != whole.fingerprint
    assert any("12 of 8, 6 of 9" in line for line in tail.told)
    assert not any("copies" in line for line in tail.told)


def test_more_of_a_class_has_all_that_fewer_have(store, images_of):
    few, many = (ingested(store, {"digits": None, "keep": {"9": n}}) for n in (6, 20))
    of_nines = []
    for found in (few, many):
        images = images_of(store, found.train)[catalogue.labels(store, found, "train") == 9]
        of_nines.append({image.tobytes() for image in images})
    assert of_nines[0] < of_nines[1]


def test_the_plan_knows_the_shape_before_anything_is_read(store):
    spec = {"digits": None, "keep": {"9": 6}}
    assert catalogue.source(spec).shape == ingested(store, spec).shape


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"nine": 6}, "dataset.keep: 'nine' is no class of digits; it has 0, 1, 2, 3, 4"),
        ({"9": 6, 9: 5}, "dataset.keep: class '9' is there twice"),
        ({"9": 0}, "dataset.keep: class 9: 0; write a whole number of training images from 1 up"),
        ({"9": "six"}, "dataset.keep: class 9: 'six'"),
        ({"9": True}, "dataset.keep: class 9: True"),
        ({"9": 5000}, r"dataset.keep: class '9' has 1\d\d training images, 5,000 are to be kept"),
        ({}, "dataset.keep: {}; write a mapping from classes to training images"),
        (6, "dataset.keep: 6; write a mapping"),
    ],
)
def test_what_is_wrong_names_the_class(keep, message):
    with pytest.raises(UserError, match=message):
        catalogue.source({"digits": None, "keep": keep})
