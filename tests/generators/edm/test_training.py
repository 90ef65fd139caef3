"""Training: schedules and draws by hand, one step by hand, repeat, resume, accumulation, workers,
failures.
"""

import io
import math

import numpy as np
import pytest
import torch

from equigrid.generators.common import rng
from equigrid.generators.common.rng import order
from equigrid.generators.edm.config import Training
from equigrid.generators.edm.schedules import ema_decay, learning_rate
from equigrid.generators.edm.steps import batch_of, losses
from equigrid.generators.edm.trainer import DenoiserTrainer
from equigrid.generators.registry import config, train
from equigrid.generators.trainer.trainer import sliced
from equigrid.generators.trainer.training_log import LossNotFinite


def tiny(steps: int = 6, compute: dict | None = None, **training):
    """A network of 8 channels with dropout and every augmentation, batch 8."""
    kinds = ["x_flip", "y_flip", "scale", "rotate", "stretch", "translate", "shift"]
    return config(
        {
            "kind": "edm",
            "network": {
                "model_channels": 8, "channel_mult": [1, 1], "num_blocks": 0, "attn_resolutions": [], "dropout": 0.1,
            },
            "training": {
                "total_nimg": 8 * steps, "batch": 8, "lr_rampup_nimg": 16, "ema_halflife_nimg": 40,
                "ema_rampup_ratio": 0.5, "augmentation": {"kinds": kinds, "probability": 0.5}, **training,
            },
            "compute": compute or {},
        }
    )  # fmt: skip


def data(n: int = 20) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8), np.arange(n, dtype=np.int64) % 5


def trained(chosen, **options) -> dict[str, torch.Tensor]:
    return train(*data(), chosen, classes=5, seed=3, **options)


def equal(one: dict, two: dict) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def furthest(one: dict, two: dict) -> float:
    return max(float((one[name] - two[name]).abs().max()) for name in one)


class TestSchedules:
    def test_learning_rate(self):
        published = Training()
        rates = [learning_rate(published, n) for n in (0, 512, 5_000_000, 10_000_000, 150_000_000)]
        assert rates == pytest.approx([0, 5.12e-8, 5e-4, 1e-3, 1e-3])
        decayed = Training(total_nimg=1000, lr=2.0, lr_rampup_nimg=100, lr_decay_nimg=500)
        assert [learning_rate(decayed, n) for n in (50, 100, 500, 750, 999)] == pytest.approx(
            [1, 2, 2, 1, 0.004]
        )

    def test_ema_decay(self):
        published = Training()
        assert ema_decay(published, 0) == 0
        assert ema_decay(published, 512) == pytest.approx(0.5**20)  # half-life 5% of 512 images
        assert ema_decay(published, 10_000_000) == pytest.approx(0.5 ** (512 / 500_000))
        assert ema_decay(Training(ema_rampup_ratio=None), 0) == pytest.approx(
            0.5 ** (512 / 500_000)
        )

    def test_steps_cover_the_images(self):
        assert Training(total_nimg=1000, batch=512).steps == 2
        assert Training(total_nimg=1024, batch=512).steps == 2


class TestDraws:
    def test_epochs_are_permutations(self):
        stream = order(20, 3, 0, 100).reshape(5, 20)
        assert np.array_equal(np.sort(stream, axis=1), np.tile(np.arange(20), (5, 1)))
        assert not np.array_equal(stream[0], stream[1])
        assert np.array_equal(order(20, 3, 37, 29), stream.ravel()[37:66])

    def test_an_epoch_is_permuted_once(self, monkeypatch):
        """Not at each of its steps; and what a caller does with its part is its own affair."""
        made, permutation = [], rng.permutation
        monkeypatch.setattr(
            rng, "permutation", lambda *given: made.append(given[2]) or permutation(*given)
        )
        want = [permutation(77, "order", epoch, 12) for epoch in range(3)]
        rng._epoch.cache_clear()
        for step in range(9):
            part = order(12, 77, 4 * step, 4)
            assert np.array_equal(part, np.concatenate(want)[4 * step : 4 * step + 4])
            part[:] = -1
        assert made == [0, 1, 2]

    def test_parts_make_the_global_batch(self):
        images, labels = map(torch.from_numpy, data())
        whole, left, right = (
            batch_of(images, labels, tiny(), seed=3, step=2, part=part)
            for part in (slice(0, 8), slice(0, 4), slice(4, 8))
        )
        for name, value in whole._asdict().items():
            joined = torch.cat([getattr(left, name), getattr(right, name)])
            assert torch.allclose(value.float(), joined.float(), atol=1e-5), name
        again = torch.cat([sliced(whole, slice(first, first + 3)).noisy for first in (0, 3, 6)])
        assert torch.equal(again, whole.noisy)

    def test_noise_levels_and_noise(self):
        images, labels = map(torch.from_numpy, data())
        chosen = tiny(batch=20_000, augmentation={"kinds": []})
        batch = batch_of(images, labels, chosen, seed=0, step=0, part=slice(0, 20_000))
        assert batch.augment is None
        assert sliced(batch, slice(0, 3)).augment is None
        logs = batch.sigma.log()
        assert float(logs.mean()) == pytest.approx(-1.2, abs=0.04)
        assert float(logs.std()) == pytest.approx(1.2, rel=0.03)
        noise = (batch.noisy - batch.clean) / batch.sigma.view(-1, 1, 1, 1)
        assert float(noise.mean()) == pytest.approx(0, abs=0.01)
        assert float(noise.std()) == pytest.approx(1, rel=0.01)
        chosen_images = images[torch.from_numpy(order(20, 0, 0, 20_000))].permute(0, 3, 1, 2)
        assert torch.allclose(batch.clean, chosen_images / 127.5 - 1, atol=1e-6)

    def test_loss_weight_times_c_out_squared_is_one(self):
        images, labels = map(torch.from_numpy, data())
        batch = batch_of(images, labels, tiny(), seed=0, step=0, part=slice(0, 8))
        c_out = batch.sigma * 0.5 / (batch.sigma**2 + 0.25).sqrt()
        off_by_c_out = batch.clean + c_out.view(-1, 1, 1, 1)
        assert losses(off_by_c_out, batch, 0.5).tolist() == pytest.approx([64.0] * 8, rel=1e-4)


class TestLoop:
    def test_steps_by_hand(self):
        """Three steps of Adam and EMA, written out, from the network's gradients alone."""
        chosen, (images, labels) = tiny(steps=3), data()
        start = DenoiserTrainer(
            images, labels, chosen, classes=5, seed=3, device=torch.device("cpu")
        )
        network = start.learner.network
        x, y = torch.from_numpy(images), torch.from_numpy(labels)
        parameters = list(network.parameters())
        average = [p.detach().clone() for p in parameters]
        m = [torch.zeros_like(p) for p in parameters]
        v = [torch.zeros_like(p) for p in parameters]
        for step, (lr, decay) in enumerate([(0, 0), (5e-4, 0.5**2), (1e-3, 0.5)]):
            batch = batch_of(x, y, chosen, seed=3, step=step, part=slice(0, 8))
            out = network(batch.noisy, batch.sigma, batch.labels, batch.augment, batch.dropout_keys)
            weight = (batch.sigma**2 + 0.25) / (batch.sigma * 0.5) ** 2
            loss = (weight.view(-1, 1, 1, 1) * (out - batch.clean) ** 2).sum() / 8
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for i, (p, g) in enumerate(zip(parameters, gradients)):
                    m[i] = 0.9 * m[i] + 0.1 * g
                    v[i] = 0.999 * v[i] + 0.001 * g * g
                    scale = (v[i] / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
                    p -= lr * (m[i] / (1 - 0.9 ** (step + 1))) / scale
                    average[i] = decay * average[i] + (1 - decay) * p
        have = trained(chosen)
        want = {name: a for (name, _), a in zip(network.named_parameters(), average)}
        assert furthest(have, want) < 1e-5

    def test_same_seed_twice_is_bitwise_equal(self):
        one = trained(tiny())
        assert equal(one, trained(tiny()))
        assert not equal(one, train(*data(), tiny(), classes=5, seed=4))

    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    @pytest.mark.parametrize("stop", [1, 4])
    def test_resumed_equals_uninterrupted(self, stop, precision):
        """Also where weights lie channels-last in memory, as in bf16: states do not say how they
        lay.
        """
        saved, chosen = io.BytesIO(), tiny(compute={"training_precision": precision})

        def keep(step, make_state):
            if step == stop:
                torch.save(make_state(), saved)

        whole = trained(chosen, checkpoint=keep)
        state = torch.load(io.BytesIO(saved.getvalue()), weights_only=True)
        assert state["step"] == stop
        assert equal(trained(chosen, resume=state), whole)
        unchanged = torch.load(io.BytesIO(saved.getvalue()), weights_only=True)["moments"]
        assert all(equal(state["moments"][name], moments) for name, moments in unchanged.items())

    def test_moments_lie_in_memory_as_their_weights_do(self):
        """Else an optimiser that walks through both side by side pairs moments with the wrong
        weights.
        """
        chosen = tiny(compute={"training_precision": "bf16"})
        stage, again = (
            DenoiserTrainer(*data(), chosen, classes=5, seed=3, device=torch.device("cpu"))
            for _ in range(2)
        )
        stage.advance()
        again.learner.restore(stage.learner.state())
        for name, p in again.learner.parameters.items():
            assert p.stride() == stage.learner.parameters[name].stride()
            assert all(
                again.learner.optimizer.state[p][key].stride() == p.stride()
                for key in ("exp_avg", "exp_avg_sq")
            )

    def test_the_last_state_resumes_to_the_result(self):
        states = []
        whole = trained(tiny(), checkpoint=lambda step, make_state: states.append(make_state()))
        assert len(states) == 6
        assert equal(trained(tiny(), resume=states[-1]), whole)
        assert equal(states[-1]["average"], whole)

    def test_the_state_is_a_copy(self):
        states = []
        trained(tiny(), checkpoint=lambda step, make_state: states.append(make_state()))
        assert not equal(states[2]["weights"], states[3]["weights"])

    def test_states_that_do_not_fit(self):
        states = []
        trained(tiny(), checkpoint=lambda step, make_state: states.append(make_state()))
        with pytest.raises(ValueError, match="step 6, past the last step, 2"):
            trained(tiny(steps=2), resume=states[-1])
        wider = tiny().model_copy(
            update={"network": tiny().network.model_copy(update={"model_channels": 12})}
        )
        with pytest.raises(
            ValueError,
            match=r"saved weights: model\.map_label\.weight has shape \[8, 5\].*\[12, 5\]",
        ):
            trained(wider, resume=states[-1])

    def test_log_rows(self):
        rows = []
        trained(tiny(steps=120), log=rows.append)
        assert [row["step"] for row in rows] == [50, 100, 120]
        assert [row["nimg"] for row in rows] == [400, 800, 960]
        assert all(row.keys() == rows[0].keys() for row in rows)
        assert all(math.isfinite(row["loss"]) and row["images_per_s"] > 0 for row in rows)
        assert rows[-1]["loss"] < rows[0]["loss"]


class TestMemory:
    def test_accumulation_changes_by_rounding_alone(self):
        whole = trained(tiny())
        parts = trained(tiny(compute={"microbatch": 3}))
        # Adam divides by the gradient's size, which for near-zero gradients enlarges rounding.
        assert furthest(whole, parts) < 1e-4

    def test_out_of_memory_halves_until_it_fits_and_is_recorded(self, monkeypatch):
        real, seen, rows = DenoiserTrainer.losses_of, [], []

        def short_of_memory(self, part, share, **options):
            seen.append(len(part.clean))
            if len(part.clean) > 2 and self.step == 2:
                raise torch.OutOfMemoryError("no memory for this batch")
            return real(self, part, share, **options)

        monkeypatch.setattr(DenoiserTrainer, "losses_of", short_of_memory)
        made = trained(tiny(), log=rows.append)
        assert seen[:4] == [8, 8, 8, 4]
        assert set(seen[4:]) == {2}
        assert rows[0]["event"] == "memory: 2 images at once"
        assert (rows[0]["step"], rows[0]["microbatch"]) == (3, 2)
        monkeypatch.undo()
        assert furthest(made, trained(tiny())) < 1e-4

    def test_settled_before_the_first_step_where_a_device_has_a_limit(self, monkeypatch):
        """What `prepare` does on a CUDA device: a pass without the other ranks, and no trace of it
        in the training.
        """
        stage = DenoiserTrainer(*data(), tiny(), classes=5, seed=3, device=torch.device("cpu"))
        before, real = stage.learner.state(), DenoiserTrainer.losses_of

        def short_of_memory(self, part, share, **options):
            assert self.learner.alone and options == {"full": True}
            if len(part.clean) > 3:
                raise torch.OutOfMemoryError("no memory for this batch")
            return real(self, part, share, **options)

        monkeypatch.setattr(DenoiserTrainer, "losses_of", short_of_memory)
        stage._fit_memory()
        assert (stage.microbatch, stage.learner.alone, stage.step) == (2, False, 0)
        assert all(p.grad is None for p in stage.learner.parameters.values())
        assert equal(stage.learner.state()["weights"], before["weights"])
        monkeypatch.setattr(
            DenoiserTrainer,
            "losses_of",
            lambda *_, **__: short_of_memory(stage, stage.batch(), 1.0, full=True),
        )
        with pytest.raises(torch.OutOfMemoryError, match="with one image at once"):
            stage._fit_memory()

    def test_memory_is_probed_in_the_form_that_will_run(self, monkeypatch):
        used = []

        def compiled(network, **options):
            def forward(*args, **kwargs):
                used.append((len(args[0]), options))
                return network(*args, **kwargs)

            return forward

        monkeypatch.setattr(torch, "compile", compiled)
        chosen = tiny(compute={"compile": "on"})
        stage = DenoiserTrainer(*data(), chosen, classes=5, seed=3, device=torch.device("cpu"))
        stage._fit_memory()
        assert used == [(8, {"dynamic": False})]
        stage.advance()
        assert len(used) == 2

    def test_a_compilation_that_fails_in_the_probe_is_given_up(self, monkeypatch):
        real, tried = DenoiserTrainer.losses_of, []

        def cannot_be_compiled(self, part, share, **options):
            tried.append(len(part.clean))
            if not self.learner._compiled.gave_up:
                raise RuntimeError("no backward pass")
            return real(self, part, share, **options)

        monkeypatch.setattr(DenoiserTrainer, "losses_of", cannot_be_compiled)
        chosen = tiny(compute={"compile": "on"})
        stage = DenoiserTrainer(*data(), chosen, classes=5, seed=3, device=torch.device("cpu"))
        stage._fit_memory()
        assert tried == [8, 8]  # and no fewer images for it
        assert stage.microbatch == 8

    def test_one_image_that_does_not_fit_is_an_error(self, monkeypatch):
        def never(*_):
            raise torch.OutOfMemoryError("no memory at all")

        monkeypatch.setattr(DenoiserTrainer, "losses_of", never)
        with pytest.raises(torch.OutOfMemoryError, match="at all"):
            trained(tiny())


class TestLossGivesOut:
    def test_step_and_last_state_are_named(self):
        steep = tiny(steps=60, lr=1e30, lr_rampup_nimg=0)
        with pytest.raises(
            LossNotFinite, match=r"step \d+ is not finite \(no state was saved"
        ) as error:
            trained(steep)
        bad = error.value.step
        assert bad >= 2

        def keep(step, make_state):
            if step == 1:
                make_state()

        with pytest.raises(LossNotFinite, match="last good state is that after step 1") as error:
            trained(steep, checkpoint=keep)
        assert (error.value.step, error.value.saved) == (bad, 1)

    def test_a_state_gone_on_from_is_good(self):
        states = []
        trained(tiny(steps=1), checkpoint=lambda step, make_state: states.append(make_state()))
        with pytest.raises(LossNotFinite, match="last good state is that after step 1"):
            trained(tiny(steps=60, lr=1e30, lr_rampup_nimg=0), resume=states[0])

    @pytest.mark.parametrize("bad", [4, 6])
    def test_weights_from_bad_gradients_are_neither_saved_nor_returned(self, monkeypatch, bad):
        """The loss of the step is finite, its gradients are not; step 6 is the last."""
        real, saved = DenoiserTrainer.losses_of, []

        def astray(self, part, share, **options):
            losses = real(self, part, share, **options)
            if self.step + 1 == bad:
                self.learner.parameters["model.map_layer0.bias"].grad[3] = math.inf
            return losses

        def keep(step, make_state):
            if step in (2, 4):
                saved.append(make_state()["step"])

        monkeypatch.setattr(DenoiserTrainer, "losses_of", astray)
        with pytest.raises(
            LossNotFinite, match=f"a weight after step {bad} is not finite .*that after step"
        ) as error:
            trained(tiny(), checkpoint=keep)
        assert error.value.step == bad
        assert error.value.saved == saved[-1] == (2 if bad == 4 else 4)


@pytest.mark.long
def test_two_workers_equal_one(in_two_workers):
    """Equal to one process but for the order of sums; a worker group's state resumes in one
    process.
    """
    parts = tiny(compute={"microbatch": 3})
    zero, one = in_two_workers(parts, data(), classes=5, seed=3)
    alone = trained(tiny())
    assert equal(zero["weights"], one["weights"])
    assert furthest(zero["weights"], alone) < 1e-4
    resumed = trained(tiny(), resume=zero["states"][3])
    assert furthest(resumed, alone) < 1e-4


def test_weights_from_a_file_are_not_trained(tmp_path):
    from safetensors.torch import save_file

    weights = trained(tiny(steps=1))
    save_file(weights, tmp_path / "w.safetensors")
    given = {
        **tiny().model_dump(mode="json"),
        "weights": str(tmp_path / "w.safetensors"),
        "setting": "open",
    }
    assert equal(trained(config(given)), weights)
    # As the grid calls it for an open set.
    nothing = (np.empty((0, 8, 8, 1), np.uint8), np.empty(0, np.int64))
    assert equal(train(*nothing, config(given), classes=5, seed=3), weights)
    (tmp_path / "w.safetensors").write_bytes(b"something else")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        trained(config(given))


@pytest.mark.long
def test_compiled_equals_eager():
    """One graph without breaks, dropout included; rounding differs where operations are fused."""
    from torch._dynamo.utils import counters

    counters.clear()
    made = trained(tiny(compute={"compile": "on"}))
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    assert furthest(made, trained(tiny())) < 1e-5


@pytest.mark.long
def test_the_digits_preset_learns_digits():
    """Samples of a class lie nearer to that class's real mean than to the others', most of the
    time.
    """
    from sklearn.datasets import load_digits

    from equigrid.generators.registry import sample

    digits = load_digits()
    images = (digits.images / 16 * 255).round().astype(np.uint8)[..., None]
    labels = digits.target.astype(np.int64)
    base = np.concatenate([np.flatnonzero(labels == k)[:20] for k in range(10)])
    chosen, rows = config({"kind": "edm", "preset": "digits"}), []
    weights = train(images[base], labels[base], chosen, classes=10, seed=0, log=rows.append)
    assert rows[-1]["loss"] < 0.55
    made, classes = sample(weights, chosen, classes=10, shape=(8, 8, 1), seed=1, start=0, stop=500)
    means = np.stack([images[labels == k].astype(float).mean(axis=0) for k in range(10)])

    def right(given: np.ndarray, of: np.ndarray) -> float:
        distances = ((given[:, None].astype(float) - means) ** 2).sum(axis=(2, 3, 4))
        return float((distances.argmin(axis=1) == of).mean())

    assert right(images, labels) > 0.85
    assert right(made, classes) > 0.75
    # Shifts are conditioned on: the samples' centre of mass spreads as the real images' does, not
    # wider.
    rows_of = np.arange(8)[None, :, None, None]
    heights = [
        (x.astype(float) * rows_of).sum(axis=(1, 2, 3)) / x.sum(axis=(1, 2, 3))
        for x in (made, images[base])
    ]
    assert np.std(heights[0]) < 1.5 * np.std(heights[1])
