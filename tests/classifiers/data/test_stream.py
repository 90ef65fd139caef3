"""The streaming feed: order, what it holds at once, and that it trains as resident images do."""

import threading
import time

import numpy as np
import pytest
import torch

from equigrid.classifiers.data.mix import Mix
from equigrid.classifiers.data.stream import Streamed, StreamedMix
from equigrid.classifiers.recipes import recipe, resolve
from equigrid.classifiers.training.loop import train

SHAPE = (8, 8, 1)


class Shard:
    """Counts fetches and knows which of its arrays are still referenced."""

    held: dict[int, int]

    def __init__(self, number, rows, log):
        rng = np.random.default_rng(number)
        self.number, self.log = number, log
        self.images = rng.integers(0, 256, (rows, *SHAPE), np.uint8)
        self.images[:, 0, 0, 0] = np.arange(rows) % 256
        self.images[:, 0, 1, 0] = number
        self.labels = rng.integers(0, 10, rows)

    def __call__(self):
        images = self.images.copy()
        self.log.enter(self.number, images)
        return images, self.labels


class Log:
    """Arrays alive now, the most alive at once, and fetches."""

    def __init__(self):
        self.alive, self.most, self.fetched, self.lock = 0, 0, [], threading.RLock()

    def enter(self, number, images):
        import weakref

        with self.lock:
            self.fetched.append(number)
            self.alive += 1
            self.most = max(self.most, self.alive)
        weakref.finalize(images, self.leave)

    def leave(self):
        with self.lock:
            self.alive -= 1


def shards(count=12, rows=30):
    log = Log()
    return [Shard(number, rows, log) for number in range(count)], log


def resolved(n, **changes):
    normal = {"mean": [0.5], "std": [0.3]}
    own = recipe({"extends": "digits", "steps": 20, "normalisation": normal, **changes})
    return resolve(own, n_base=n, n_total=n, n_dataset=n, classifier="digits-cnn")


def feed(sources, indices=None, *, batch=32, seed=0, **options):
    indices = np.arange(30) if indices is None else indices
    mix = StreamedMix([(source, indices) for source in sources], SHAPE, **options)
    return Streamed(mix, resolved(mix.n_total, batch=batch), seed, 10, torch.device("cpu"))


def take(stream, epoch, first, count):
    batches = stream.batches(epoch, first)
    out = [next(batches) for _ in range(count)]
    batches.close()
    return out


def identity(batch):
    """(shard, row) of each image in the batch."""
    return [(int(p[0, 1, 0]), int(p[0, 0, 0])) for p in batch.padded]


@pytest.mark.parametrize(("window", "rows"), [(3, 30), (1, 30), (11, 30), (12, 30), (3, 7)])
def test_an_epoch_has_every_image_once_with_its_label(window, rows):
    sources, _ = shards(rows=rows)
    stream = feed(sources, np.arange(rows), window=window)
    for epoch in range(2):
        batches = take(stream, epoch, 0, stream.steps_per_epoch)
        found = [pair for batch in batches for pair in identity(batch)]
        assert sorted(found) == [(s, r) for s in range(12) for r in range(rows)]
        for batch in batches:
            assert batch.targets.tolist() == [int(sources[s].labels[r]) for s, r in identity(batch)]
            assert batch.draws[:, 0].tolist() == list(range(len(batch.padded)))
        assert sum(batch.n_global for batch in batches) == 12 * rows


def test_what_is_held_is_bounded_and_all_is_let_go():
    sources, log = shards(count=40)
    stream = feed(sources, window=4, ahead=2)
    take(stream, 0, 0, 2 * stream.steps_per_epoch)
    # window, ahead, and shards that begin and end within the same batch
    assert log.most <= 4 + 2 + 3
    # once per epoch, and once more for each shard whose stay runs over the epoch's end
    assert 2 * 40 <= len(log.fetched) <= 2 * (40 + 4) + 6
    stream.epoch_draws.cache_clear()
    deadline = time.monotonic() + 60
    while log.alive and time.monotonic() < deadline:
        time.sleep(0.01)
    assert log.alive == 0


def test_the_order_is_mixed_over_the_window_and_differs_by_epoch():
    sources, _ = shards(count=40)
    stream = feed(sources, window=8)
    first, second = (take(stream, epoch, 0, stream.steps_per_epoch) for epoch in range(2))
    # 8 shards at hand: 32 images of a batch come from nearly all of them
    assert np.mean([len({s for s, _ in identity(batch)}) for batch in first[:-1]]) > 7
    assert [identity(b) for b in first] != [identity(b) for b in second]
    # also at the epoch's beginning and end
    assert min(len({s for s, _ in identity(first[i])}) for i in (0, -2)) >= 5


def test_starting_in_the_middle_continues_exactly():
    sources, _ = shards()
    whole = take(feed(sources, window=3), 0, 0, 20)
    for epoch, first in ((0, 5), (1, 0), (1, 2)):
        skipped = epoch * 12 + first
        rest = take(feed(sources, window=3), epoch, first, 20 - skipped)
        for a, b in zip(rest, whole[skipped:]):
            assert torch.equal(a.padded, b.padded)
            assert torch.equal(a.draws, b.draws)


def test_with_everything_at_hand_it_trains_as_resident_images_bitwise():
    sources, log = shards(count=3)
    chosen = [np.array([3, 3, 20, 7]), np.arange(30), np.array([], np.int64)]
    options = {"model": "digits-cnn", "classes": 10, "seed": 5, "device": "cpu"}
    own = resolved(34, augmentation={"crop_padding_px": 1})
    streamed = train(StreamedMix(list(zip(sources, chosen)), SHAPE), recipe=own, **options)
    resident = train(
        Mix([(s.images, s.labels, i) for s, i in zip(sources, chosen)]), recipe=own, **options
    )
    a, b = streamed.module.state_dict(), resident.module.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in b)
    assert sorted(log.fetched) == [0, 1]  # once each, and never the one without a chosen row


def test_resumed_equals_uninterrupted_bitwise():
    sources, _ = shards()
    options = {"model": "digits-cnn", "classes": 10, "seed": 5, "device": "cpu"}
    mix = StreamedMix([(source, np.arange(30)) for source in sources], SHAPE, window=3)
    states = []
    own = resolved(360)
    whole = train(
        mix,
        recipe=own,
        checkpoint=lambda s, make: states.append(make()) if s == 13 else None,
        **options,
    )
    rest = train(mix, recipe=own, resume=states[0], **options)
    a, b = whole.module.state_dict(), rest.module.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in b)


def test_shards_are_fetched_ahead_of_their_need():
    sources, log = shards()
    batches = feed(sources, window=3, ahead=2).batches(0, 0)
    next(batches)
    deadline = time.monotonic() + 60
    while len(log.fetched) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    batches.close()
    assert len(log.fetched) >= 5


def test_a_failing_fetch_reaches_the_caller_and_ends_the_thread():
    def broken():
        raise OSError("checksum")

    sources, _ = shards()
    before = threading.active_count()
    mix = StreamedMix([(sources[0], np.arange(30)), (broken, np.arange(30))], SHAPE)
    with pytest.raises(OSError, match="checksum"):
        train(mix, model="digits-cnn", recipe=resolved(60), classes=10, seed=0, device="cpu")
    assert threading.active_count() <= before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shape": (8, 9, 1)}, "expected"),
        ({"classes": 4}, r"labels must be 0\.\.3"),
        ({"indices": np.array([], np.int64)}, "empty"),
        ({"window": 0}, "window and ahead"),
        ({"normalisation": None}, "give the recipe a normalisation"),
    ],
)
def test_bad_input_is_named(change, said):
    sources, _ = shards(count=1)

    def run():
        parts = [(sources[0], change.get("indices", np.arange(30)))]
        mix = StreamedMix(parts, change.get("shape", SHAPE), window=change.get("window", 8))
        changes = {"normalisation": None} if "normalisation" in change else {}
        own = resolved(30, **changes)
        train(
            mix,
            model="digits-cnn",
            recipe=own,
            classes=change.get("classes", 10),
            seed=0,
            device="cpu",
        )

    with pytest.raises(ValueError, match=said):
        run()
