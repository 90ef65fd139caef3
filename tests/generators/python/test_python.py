"""`kind: python`: a user's own module is found, hashed, trained and sampled, and told what is wrong."""

import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from equigrid.generators import registry
from equigrid.generators.python import calling, source

PLAIN = """
import numpy as np
def sample(label, seed, level=0):
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 100, (4, 5, 3)) + label + level).astype(np.uint8)
"""
TRAINED = """
import numpy as np
from own_parts.model import Model
def train(images, labels, folder, seed, log, device, scale=1):
    log({"step": 1, "device": device})
    (folder / "deep").mkdir()
    np.save(folder / "deep/mean.npy", images.mean(0) * scale)
    np.save(folder / "seed.npy", seed)
def load(folder, shape, gain=1):
    assert shape == (4, 5, 3)
    return Model(np.load(folder / "deep/mean.npy") * gain)
"""
MODEL = """
import numpy as np
class Model:
    def __init__(self, mean):
        self.mean = mean
    def sample_batch(self, labels, seeds):
        assert len(labels) == len(seeds) == 8
        noise = [np.random.default_rng(seed).integers(0, 9, self.mean.shape) for seed in seeds]
        return np.stack([(self.mean + n).astype(np.uint8) for n in noise])
"""
SHAPE = (4, 5, 3)


@pytest.fixture(autouse=True)
def nothing_stays():
    """What a test imported, and where from, is gone after it."""
    modules, path = set(sys.modules), list(sys.path)
    yield
    registry.release()
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("own"):
            del sys.modules[name]


@pytest.fixture
def own(tmp_path):
    """Writes a module and gives the mapping of a spec for it."""

    def make(text: str = PLAIN, name: str = "own_gan", **keys) -> dict:
        file = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return {"kind": "python", "module": name, "path": str(tmp_path), "setting": "open", **keys}

    return make


@pytest.fixture
def trained(own, tmp_path):
    def make(**keys) -> dict:
        (tmp_path / "own_parts").mkdir(exist_ok=True)
        (tmp_path / "own_parts/model.py").write_text(MODEL)
        return own(TRAINED, setting="closed", batch=8, **keys)

    return make


def sampled(config, start: int, stop: int, weights=None, seed: int = 7):
    weights = {} if weights is None else weights
    return registry.sample(
        weights, config, classes=3, shape=SHAPE, seed=seed, start=start, stop=stop
    )


def ids(mapping: dict) -> tuple[dict, dict]:
    config = registry.config(mapping)
    return config.trained_identity(), config.sampling_payload()


# Images -------------------------------------------------------------------------------------------


def test_image_i_depends_on_the_pool_and_i_alone(own):
    config = registry.config(own())
    images, labels = sampled(config, 0, 20)
    assert images.shape == (20, *SHAPE)
    assert sorted(np.bincount(labels)) == [6, 7, 7]
    part, part_labels = sampled(config, 7, 12)
    assert np.array_equal(part, images[7:12])
    assert np.array_equal(part_labels, labels[7:12])
    assert not np.array_equal(sampled(config, 0, 20, seed=8)[0], images)
    assert len({image.tobytes() for image in images}) == 20


def test_options_reach_the_module(own):
    level = {"sampling": {"level": 100}}
    images, labels = sampled(registry.config(own(**level)), 0, 9)
    plain, _ = sampled(registry.config(own()), 0, 9)
    assert np.array_equal(images, plain + 100)


def test_what_train_writes_is_what_load_reads(trained):
    images = np.full((6, *SHAPE), 40, np.uint8)
    rows: list[dict] = []
    config = registry.config(trained(training={"scale": 2}, sampling={"gain": 1.5}))
    weights = registry.train(
        images, np.zeros(6, np.int64), config, classes=3, seed=2**60, log=rows.append
    )
    assert set(weights) == {"deep/mean.npy", "seed.npy"}
    assert all(w.dtype == torch.uint8 for w in weights.values())
    assert rows == [{"step": 1, "device": "cpu"}]
    made, _ = sampled(config, 3, 21, weights)
    assert made.min() >= 120  # 40, twice, and half as much again
    assert made.max() <= 128
    assert np.array_equal(sampled(config, 5, 9, weights)[0], made[2:6])


def test_the_seed_of_a_training_is_one_that_scikit_learn_takes(trained, tmp_path):
    config = registry.config(trained())
    found = set()
    for seed in (1, 2, 2**62):
        weights = registry.train(
            np.zeros((2, *SHAPE), np.uint8), np.zeros(2, np.int64), config, classes=3, seed=seed
        )
        weights["seed.npy"].numpy().tofile(tmp_path / "seed.npy")
        found.add(int(np.load(tmp_path / "seed.npy")))
    assert len(found) == 3
    assert all(0 <= seed < 2**32 for seed in found)


def test_a_pool_of_other_weights_is_another(trained):
    config = registry.config(trained())
    for level in (10, 90):
        images = np.full((2, *SHAPE), level, np.uint8)
        weights = registry.train(images, np.zeros(2, np.int64), config, classes=3, seed=0)
        assert abs(sampled(config, 0, 8, weights)[0].mean() - level - 4) < 1


def test_weights_never_leave_their_folder(own):
    config = registry.config(own())
    with pytest.raises(ValueError, match="leads out of their folder"):
        sampled(config, 0, 1, {"../out": torch.zeros(1, dtype=torch.uint8)})


# Ids ----------------------------------------------------------------------------------------------


def test_ids_hold_name_files_and_options_and_no_place(own, tmp_path, monkeypatch):
    first = ids(own())
    assert ids(own(batch=3)) == first
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / "own_gan.py").write_text(PLAIN.replace("\n", "\r\n"))
    assert ids({**own(), "path": str(moved)}) == first
    monkeypatch.syspath_prepend(str(moved))
    assert ids({key: value for key, value in own().items() if key != "path"}) == first
    assert ids(own(training={"a": 1}))[0] != first[0]
    assert ids(own(sampling={"level": 1})) == (first[0], ids(own(sampling={"level": 1}))[1])
    assert ids(own(sampling={"level": 1}))[1] != first[1]
    assert ids(own(PLAIN + "# a comment\n"))[0] != first[0]
    assert ids(own(name="own_other"))[0] != ids(own())[0]


def test_a_version_stands_in_place_of_the_files(own):
    first = ids(own(version="1"))
    assert ids(own(PLAIN + "# a comment\n", version="1")) == first
    assert ids(own(version="2"))[0] != first[0]
    assert ids(own())[0] != first[0]


def test_what_the_module_imports_from_its_folder_counts(trained, tmp_path):
    first = ids(trained())[0]
    (tmp_path / "unrelated.py").write_text("import own_gan")
    assert ids(trained())[0] == first
    (tmp_path / "own_parts/__init__.py").write_text("")  # runs when a part is imported
    second = ids(trained())[0]
    assert second != first
    (tmp_path / "own_parts/model.py").write_text(MODEL + "# changed\n")
    config = registry.config(
        {"kind": "python", "module": "own_gan", "path": str(tmp_path), "setting": "closed"}
    )
    assert config.trained_identity() != second


def test_relative_imports_and_packages_are_followed(tmp_path):
    files = {
        "own_lab/__init__.py": "", "own_lab/gan.py": "from . import nets\nfrom .deep.ema import x",
        "own_lab/nets.py": "import numpy", "own_lab/deep/ema.py": "from ..nets import y",
        "own_lab/other.py": "", "own_free.py": "import own_lab.gan\nimport equigrid",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    lab = ("own_lab/__init__.py", "own_lab/deep/ema.py", "own_lab/gan.py", "own_lab/nets.py")
    assert source.find("own_lab.gan", str(tmp_path)).files == lab
    assert source.find("own_free", str(tmp_path)).files == ("own_free.py", *lab)


def test_an_installed_module_counts_its_own_package_alone(tmp_path, monkeypatch):
    (tmp_path / "own_lab").mkdir()
    (tmp_path / "own_lab/gan.py").write_text("import own_library")
    (tmp_path / "own_library.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert source.find("own_lab.gan", None).files == ("own_lab/gan.py",)


def test_planning_runs_nothing_of_the_module(own):
    config = registry.config(own("import nowhere\nraise RuntimeError\ndef sample(a, b): ..."))
    assert config.trained_identity()["code"]
    assert "own_gan" not in sys.modules


def test_a_machine_with_other_files_refuses(own):
    planned = registry.config(own()).model_dump(mode="json")
    assert registry.config(planned).model_dump(mode="json") == planned
    own(PLAIN + "# changed\n")
    with pytest.raises(ValueError, match="is not what the grid was planned with") as told:
        registry.config(planned)
    assert "\n" not in str(told.value)


def test_a_module_that_changed_is_imported_anew(own):
    before, _ = sampled(registry.config(own()), 0, 5)
    after, _ = sampled(registry.config(own(PLAIN.replace("+ label", "+ label + 50"))), 0, 5)
    assert np.array_equal(after, before + 50)


# What can be wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "keys", "message"),
    [
        (PLAIN, {"module": "own_gna"}, "there is no file own_gna.py in .*PYTHONPATH"),
        (PLAIN, {"module": "own-gan"}, "a module's dotted name"),
        ("def sampel(label, seed): ...", {}, "neither sample"),
        ("def sample(label seed): ...", {}, r"own_gan.py:1 is no Python"),
        (PLAIN, {"setting": "closed"}, "no train.*write setting: open"),
        (TRAINED.partition("def load")[0], {}, "train and no load"),
        (PLAIN, {"sampling": {"level": float("nan")}}, "sampling: write numbers"),
        (PLAIN, {"batch": 0}, "batch 0: "),
        (PLAIN, {"steps": 5}, "unknown key 'steps'"),
        (PLAIN, {"setting": None}, "setting None: input should be 'closed', 'open' or 'adapted'"),
    ],
)
def test_a_mapping_that_is_wrong_is_told_in_a_line(own, text, keys, message):
    with pytest.raises(ValueError, match=message) as told:
        registry.config({**own(text), **keys})
    assert "\n" not in str(told.value)


GIVES = "import numpy as np\ndef sample(label, seed):\n    return {}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GIVES.format("np.zeros((4, 5, 3))"), r"sample\(label=\d, seed=\d+\): gave float64; give uint8"),
        (GIVES.format("np.full((4, 5, 3), np.nan)"), "NaN or infinite"),
        (GIVES.format("np.zeros((4, 4, 3), np.uint8)"), r"shape \(4, 4, 3\).*give \(4, 5, 3\)"),
        (GIVES.format("1 / 0"), r"sample\(.*\): ZeroDivisionError: division by zero"),
        (GIVES.format("np.random.randint(0, 256, (4, 5, 3)).astype(np.uint8)"), "two different im"),
        ("import nowhere_at_all\n" + PLAIN, "import: ModuleNotFoundError: No module named 'nowhere"),
        ("def load(folder): return 3", "load gave a int, which has neither"),
        (
            "import numpy as np\ndef sample_batch(labels, seeds):\n"
            "    return np.zeros((3, 4, 5, 3), np.uint8)",
            r"sample_batch of 64 labels.*\(4, 5, 3\), 3 of it; give \(4, 5, 3\), 64 of it",
        ),
    ],
)  # fmt: skip
def test_a_module_that_is_wrong_is_told_in_a_line(own, text, message):
    with pytest.raises(ValueError, match=message) as told:
        sampled(registry.config(own(text)), 0, 3)
    assert str(told.value).startswith("module own_gan: ")
    assert "\n" not in str(told.value)


RAISES = "import sys\nclass Odd(BaseException):\n    pass\nclass Mute(Exception):\n" + (
    "    def __str__(self):\n        return 1 / 0\ndef sample(label, seed):\n    {}\n"
)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("sys.exit(3)", "SystemExit: 3"),
        ("sys.exit()", "SystemExit"),
        ("sys.exit('bye\\nbye')", "SystemExit: bye"),
        ("raise Odd('odd')", "Odd: odd"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise Mute", "Mute"),
        ("return None", "gave a NoneType; give an array of uint8 from 0 to 255"),
        ("return {}", "gave a dict; give an array of uint8 from 0 to 255"),
        ("return [[1], [2, 3]]", "ValueError: setting an array element with a sequence"),
    ],
)
def test_nothing_that_a_module_does_ends_the_process(own, monkeypatch, statement, said):
    """`sys.exit` in a slot ended it without a word, and the job was tried again and again."""
    slots = SimpleNamespace(**vars(signal) | {"getsignal": lambda number: signal.SIG_IGN})
    monkeypatch.setattr(calling, "signal", slots)
    with pytest.raises(ValueError, match=rf"sample\(label=\d, seed=\d+\): {said}") as told:
        sampled(registry.config(own(RAISES.format(statement))), 0, 3)
    assert "\n" not in str(told.value)


def test_a_module_that_exits_while_it_is_imported(own):
    with pytest.raises(ValueError, match="^module own_gan: import: SystemExit: 5$"):
        sampled(registry.config(own("import sys\nsys.exit(5)\n" + PLAIN)), 0, 1)


def test_an_interrupt_and_an_end_from_outside_stay_what_they_are(own, monkeypatch):
    here = SimpleNamespace(**vars(signal) | {"getsignal": lambda _: signal.default_int_handler})
    monkeypatch.setattr(calling, "signal", here)
    with pytest.raises(KeyboardInterrupt):  # here it is Ctrl-C
        sampled(registry.config(own(RAISES.format("raise KeyboardInterrupt"))), 0, 1)
    rays: dict = {"__name__": "ray._private.worker"}
    exec("def handler():\n    raise SystemExit(1)", rays)
    sys.modules["own_ray"] = type(sys)("own_ray")
    sys.modules["own_ray"].handler = rays["handler"]
    with pytest.raises(SystemExit):
        sampled(registry.config(own("import own_ray\ndef sample(a, b): own_ray.handler()")), 0, 1)


ODD = """
import os, signal, sys, tempfile
import numpy as np
import torch
torch.set_default_dtype(torch.float64)
torch.set_num_threads(torch.get_num_threads() + 3)
calls = 0
def sample(label, seed):
    global calls
    calls += 1
    if calls == 1:
        os.environ.clear()
        os.environ["OWN"] = "1"
        np.seterr(all="raise")
        torch.set_grad_enabled(False)
        torch.set_default_device("meta")
        torch.use_deterministic_algorithms(True)
        torch.set_float32_matmul_precision("medium")
        torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
        sys.setrecursionlimit(500)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.stdout = None
        gone = tempfile.mkdtemp()
        os.chdir(gone)
        os.rmdir(gone)
    assert torch.get_default_dtype() is torch.float64
    assert os.environ["OWN"] == "1" and not torch.is_grad_enabled()
    assert torch.empty(1).device.type == "meta"
    return np.zeros((4, 5, 3), np.uint8)
"""


def settings_of_the_process() -> list:
    return [
        torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), os.getcwd(),
        torch.empty(1).device, torch.are_deterministic_algorithms_enabled(), dict(os.environ),
        torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark, np.geterr(),
        sys.getrecursionlimit(), signal.getsignal(signal.SIGTERM), sys.stdout,
    ]  # fmt: skip


def test_what_a_module_changes_of_its_process_is_its_own(own):
    """Trials run in the same process after it: other threads or dtypes would be other results. What
    it set it finds again, from shard to shard.
    """
    before = settings_of_the_process()
    config = registry.config(own(ODD))
    for start in (0, 5):
        sampled(config, start, start + 5)
        assert settings_of_the_process() == before


def test_the_users_own_traceback_stays_behind_the_line(own, tmp_path):
    with pytest.raises(ValueError, match="ZeroDivisionError") as told:
        sampled(registry.config(own(GIVES.format("1 / 0"))), 0, 3)
    trace = told.value.__cause__.__traceback__
    while trace.tb_next:
        trace = trace.tb_next
    assert Path(trace.tb_frame.f_code.co_filename) == tmp_path / "own_gan.py"
    assert trace.tb_lineno == 3


@pytest.mark.parametrize(
    "error", ["MemoryError()", "ConnectionError('gone')", "OutOfMemoryError()"]
)
def test_what_another_attempt_may_mend_stays_what_it_is(own, error):
    text = (
        f"class OutOfMemoryError(RuntimeError): ...\ndef sample(label, seed):\n    raise {error}\n"
    )
    with pytest.raises((MemoryError, ConnectionError, RuntimeError)) as told:
        sampled(registry.config(own(text)), 0, 1)
    assert type(told.value).__name__ == error.partition("(")[0]


def test_a_training_that_writes_nothing_is_told(own):
    text = "def train(images, labels, folder, seed): ...\ndef load(folder): ..."
    config = registry.config(own(text, setting="closed"))
    with pytest.raises(ValueError, match="train wrote no file"):
        registry.train(
            np.zeros((1, *SHAPE), np.uint8), np.zeros(1, np.int64), config, classes=1, seed=0
        )


def test_a_users_file_never_stands_in_for_a_library(own, tmp_path):
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('the user has it')")
    sampled(registry.config(own("import colorsys\n" + PLAIN)), 0, 1)


def test_another_module_of_the_name_is_told(own, monkeypatch):
    monkeypatch.setitem(sys.modules, "own_gan", torch)
    with pytest.raises(ValueError, match="Python has another one of this name"):
        sampled(registry.config(own()), 0, 1)


def test_grey_images_may_come_without_their_channel(own):
    text = "import numpy as np\ndef sample(label, seed): return np.full((4, 5), label, np.uint8)"
    images, labels = registry.sample(
        {}, registry.config(own(text)), classes=3, shape=(4, 5, 1), seed=0, start=0, stop=6
    )
    assert np.array_equal(images[:, 0, 0, 0], labels)
