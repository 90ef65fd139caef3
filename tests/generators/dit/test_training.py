"""Training and sampling a DiT: by hand, repeat, resume, memory, workers, pools, released weights,
learning.
"""

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from equigrid.generators import previews, registry
from equigrid.generators.common import pools
from equigrid.generators.common.rng import seed_of
from equigrid.generators.dit.autoencoding import AutoencoderTrainer
from equigrid.generators.dit.denoising import TransformerTrainer
from equigrid.generators.dit.latents import Latents
from equigrid.generators.dit.parts import Training
from equigrid.generators.dit.released import WEIGHTS_NAME
from equigrid.generators.dit.schedules import ema_decay, learning_rate
from equigrid.generators.dit.weights import from_files, loaded, part_of
from equigrid.generators.registry import config, sample, train
from equigrid.generators.trainer.learner import Learner
from equigrid.generators.trainer.training_log import LossNotFinite

DOCUMENTATION = Path(__file__).parents[3] / "docs" / "dit.md"
CPU = torch.device("cpu")
CLASSES, SHAPE = 5, (8, 8, 1)


def tiny(
    *,
    vae_steps: int = 4,
    steps: int = 4,
    compute: dict | None = None,
    sampler: dict | None = None,
    **training,
):
    judge = {"base_channels": 8, "layers": 1, "starts_at_part": 0.5}
    return config(
        {
            "kind": "dit",
            "network": {"depth": 2, "width": 16, "heads": 2},
            "vae": {
                "downsample": 2, "base_channels": 8, "layers_per_block": 1, "norm_groups": 4, "attention": False,
                "training": {"steps": vae_steps, "batch": 8, "discriminator": judge},
            },
            "training": {"steps": steps, "batch": 8, "lr_rampup_part": 0.5, **training},
            "sampler": {"steps": 5, "batch": 6, **(sampler or {})},
            "compute": compute or {},
        }
    )  # fmt: skip


def data(n: int = 20) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, *SHAPE), dtype=np.uint8), np.arange(n, dtype=np.int64) % CLASSES


def trained(chosen, **options) -> dict[str, torch.Tensor]:
    return train(*data(), chosen, classes=CLASSES, seed=3, **options)


@pytest.fixture(scope="module")
def whole() -> dict:
    """An uninterrupted training: weights, states saved after each step, log rows, artefacts."""
    made = {"states": [], "rows": [], "artefacts": {}}

    def keep(step, make_state):
        file = io.BytesIO()
        torch.save(make_state(), file)
        made["states"].append(file.getvalue())

    made["weights"] = trained(
        tiny(), checkpoint=keep, log=made["rows"].append, artefacts=made["artefacts"]
    )
    return made


def state(whole: dict, step: int) -> dict:
    return torch.load(io.BytesIO(whole["states"][step - 1]), weights_only=True)


def equal(one: dict, two: dict) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def furthest(one: dict, two: dict) -> float:
    return max(float((one[name] - two[name]).abs().max()) for name in one)


class TestSchedules:
    def test_learning_rate(self):
        schedule = Training(steps=100, lr=2.0, lr_rampup_part=0.1, lr_decay_part=0.5)
        made = [learning_rate(schedule, step) for step in (0, 4, 9, 50, 75, 99)]
        assert made == pytest.approx([0.2, 1.0, 2.0, 2.0, 1.0, 0.04])
        assert learning_rate(Training(), 0) == learning_rate(Training(), 399_999) == 1e-4

    def test_average(self):
        network, training = torch.nn.Linear(1, 1, bias=False), Training(ema_decay=0.5)
        with torch.no_grad():
            network.weight.fill_(0)
        optimizer = torch.optim.SGD(network.parameters(), lr=0)
        learner = Learner(network, optimizer, precision="fp32", averages=True)
        values, average = [1.0, 3.0, 5.0, 9.0], 0.0
        for step, value in enumerate(values):
            with torch.no_grad():
                network.weight.fill_(value)
            network.weight.grad = torch.zeros(1, 1)
            learner.update(0.0, ema_decay(training, step))
            decay = min(0.5, (1 + step) / (10 + step))
            average = decay * average + (1 - decay) * value
            assert float(learner.averaged()["weight"]) == pytest.approx(average)


def ready(chosen) -> TransformerTrainer:
    images, labels = data()
    weights = part_of(trained(tiny(vae_steps=1, steps=1)), "vae")
    latents = Latents(images, chosen, weights, {}, device=CPU)
    return TransformerTrainer(
        latents, torch.from_numpy(labels), chosen, classes=CLASSES, seed=3, device=CPU
    )


class TestStep:
    def test_batches_by_hand(self):
        of = ready(tiny(label_dropout=0.25, batch=200))
        batch = of.batch()
        assert batch.clean.shape == batch.noise.shape == (200, 4, 4, 4)
        assert batch.t.dtype == torch.int64 and set(batch.t.tolist()) <= set(range(1000))
        assert abs(float(batch.t.float().mean()) - 499.5) < 4 * 289 / 200**0.5
        assert 26 < int((batch.labels == CLASSES).sum()) < 74  # of 200 a quarter, 4 deviations
        kept = batch.labels[batch.labels < CLASSES]
        assert set(kept.tolist()) == set(range(CLASSES))
        again = of.batch()
        assert all(torch.equal(one, two) for one, two in zip(batch, again))
        of.step = 1
        assert not torch.equal(of.batch().noise, batch.noise)

    def test_without_dropout_every_label_is_its_images(self):
        of = ready(tiny(label_dropout=0.0, batch=20, sampler={"guidance": 1.0}))
        of.latents.moments[:, :, 4:] = -30  # no spread: a draw is its image's mean
        batch = of.batch()
        scale = of.latents.measured["scale"]
        means = of.latents.moments[:, :, :4].float() * scale  # (20, 2, 4, 4, 4)
        # To each image, mirrored or not.
        distance = (batch.clean[:, None, None] - means).square().sum((3, 4, 5)).amin(2)
        nearest = distance.argmin(1)
        assert sorted(nearest.tolist()) == list(range(20))  # an epoch
        assert torch.equal(batch.labels, torch.from_numpy(data()[1])[nearest])

    def test_one_step_by_hand(self):
        """The loss of the network's output at the published noise levels, and AdamW's first step
        against it.
        """
        of = ready(tiny())
        network = of.learners["transformer"].network
        with torch.no_grad():
            for p in network.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
        batch = of.batch()
        left = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)[
            batch.t
        ].float()
        noisy = (
            left.sqrt()[:, None, None, None] * batch.clean
            + (1 - left).sqrt()[:, None, None, None] * batch.noise
        )
        before = of.learners["transformer"].weights()
        output = network(noisy, timestep=batch.t, class_labels=batch.labels).sample
        squared, bound = of.diffusion.losses(output, batch.clean, batch.noise, noisy, batch.t)
        (squared.mean() + bound.mean()).backward()
        gradient = network.proj_out_2.bias.grad.clone()
        loss, mse, vb = of.advance().tolist()
        assert (mse, vb) == pytest.approx((squared.mean().item(), bound.mean().item()), rel=1e-4)
        assert loss == pytest.approx(mse + vb, rel=1e-5)
        lr = 1e-4 * 1 / 2  # the first of four steps, of which two are the ramp-up
        wanted = before["proj_out_2.bias"] - lr * gradient / (gradient.abs() + 1e-8)
        torch.testing.assert_close(network.proj_out_2.bias.detach(), wanted, rtol=1e-4, atol=1e-8)


class TestRepeatAndResume:
    def test_same_seed_twice(self, whole):
        assert equal(trained(tiny()), whole["weights"])
        other = train(*data(), tiny(), classes=CLASSES, seed=4)
        assert not torch.equal(
            other["vae.encoder.conv_in.weight"], whole["weights"]["vae.encoder.conv_in.weight"]
        )

    @pytest.mark.parametrize("step", [1, 3, 4, 5, 8])
    def test_resumed_equals_uninterrupted(self, whole, step):
        """In the autoencoder's stage without and with its discriminator, at the seam, and in the
        transformer's.
        """
        saved = state(whole, step)
        assert saved["step"] == step and saved["stage"] == (
            "autoencoder" if step <= 4 else "transformer"
        )
        steps = []
        made = trained(tiny(), resume=saved, checkpoint=lambda step, _: steps.append(step))
        assert equal(made, whole["weights"])
        assert steps == list(range(step + 1, 9))

    def test_the_last_average_is_the_result(self, whole):
        assert len(whole["states"]) == 8
        assert equal(state(whole, 8)["average"], whole["weights"])

    def test_latents_are_not_made_twice(self, whole):
        kept = dict(whole["artefacts"])
        assert sorted(kept) == ["latents/00000"]
        before = {name: value["moments"] for name, value in kept.items()}
        assert equal(trained(tiny(), resume=state(whole, 6), artefacts=kept), whole["weights"])
        assert all(kept[name]["moments"] is before[name] for name in kept)

    def test_a_state_past_the_end(self, whole):
        with pytest.raises(ValueError, match="step 8, past the last step, 6"):
            trained(tiny(steps=2), resume=state(whole, 8))

    def test_a_state_of_another_network(self, whole):
        other = config({**tiny().model_dump(), "network": {"depth": 1, "width": 16, "heads": 2}})
        with pytest.raises(ValueError, match="saved weights: transformer_blocks.1"):
            trained(other, resume=state(whole, 6))


class TestLog:
    def test_rows_have_equal_keys_and_say_what_was_measured(self, whole):
        rows = whole["rows"]
        assert all(row.keys() == rows[0].keys() for row in rows)
        assert [(row["stage"], row["step"], row["event"]) for row in rows] == [
            ("autoencoder", 4, ""), ("transformer", 4, "latents"), ("transformer", 8, ""),
        ]  # fmt: skip
        assert rows[0]["l1"] > 0 and rows[0]["mse"] is None and rows[2]["mse"] > 0
        assert rows[1]["psnr_db"] == pytest.approx(float(whole["weights"]["measured.psnr_db"]))
        assert rows[1]["latent_scale"] == pytest.approx(float(whole["weights"]["measured.scale"]))

    def test_a_bad_loss_names_its_step_and_the_last_good_state(self):
        saved = []

        def keep(step, make_state):
            if step == 5:
                saved.append(make_state())

        with pytest.raises(LossNotFinite, match="last good state is that after step 5") as error:
            trained(tiny(steps=8, lr=1e30, lr_rampup_part=0.0), checkpoint=keep)
        assert error.value.step > 5 and len(saved) == 1


class TestMemory:
    @pytest.mark.parametrize("compute", [{"microbatch": 3}, {"gradient_checkpointing": "on"}])
    def test_changes_by_rounding_alone(self, whole, compute):
        # Adam divides by the gradient's size, which for near-zero gradients enlarges rounding.
        made = trained(tiny(compute=compute))
        assert furthest(part_of(made, "dit"), part_of(whole["weights"], "dit")) < 2e-4
        assert furthest(part_of(made, "vae"), part_of(whole["weights"], "vae")) < 2e-4

    def test_out_of_memory_checkpoints_first_then_halves_and_is_recorded(self, whole, monkeypatch):
        real, rows = TransformerTrainer.losses_of, []

        def short_of_memory(self, part, share, **options):
            if len(part.clean) > 3 or not self.checkpointing:
                raise torch.OutOfMemoryError("as a device would")
            return real(self, part, share, **options)

        monkeypatch.setattr(TransformerTrainer, "losses_of", short_of_memory)
        made = trained(tiny(), log=rows.append)
        events = [row["event"] for row in rows if row["event"].startswith("memory")]
        assert events == ["memory: 2 images at once, activations computed twice"]
        assert furthest(made, whole["weights"]) < 2e-4

    def test_settled_before_the_first_step_where_a_device_has_a_limit(self, monkeypatch):
        """What `prepare` does on a CUDA device, in the autoencoder's stage: its discriminator's
        share counts too.
        """
        stage, seen = AutoencoderTrainer(data()[0], tiny(), seed=3, device=CPU), []
        real = AutoencoderTrainer.losses_of

        def short_of_memory(self, part, share, **options):
            seen.append((len(part.clean), self.checkpointing))
            if len(part.clean) > 4 or not self.checkpointing:
                raise torch.OutOfMemoryError("as a device would")
            losses = real(self, part, share, **options)
            assert losses[4] > 0  # long before the discriminator's turn
            return losses

        monkeypatch.setattr(AutoencoderTrainer, "losses_of", short_of_memory)
        stage._fit_memory()
        assert seen == [(8, False), (8, True), (4, True)]
        assert (stage.microbatch, stage.checkpointing, stage.step) == (4, True, 0)
        assert all(
            p.grad is None
            for learner in stage.learners.values()
            for p in learner.parameters.values()
        )

    def test_no_room_at_all(self, monkeypatch):
        def full(self, part, share, **options):
            raise torch.OutOfMemoryError("as a device would")

        monkeypatch.setattr(TransformerTrainer, "losses_of", full)
        with pytest.raises(torch.OutOfMemoryError):
            trained(tiny())


@pytest.fixture(scope="module")
def drawn(whole) -> dict:
    """Weights with every layer drawn: after four steps a network hardly sees its labels."""
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: value + 0.1 * torch.randn(value.shape, generator=generator)
        if name.startswith("dit.")
        else value
        for name, value in whole["weights"].items()
    }
    return {"weights": weights}


class TestPools:
    def pool(self, whole, start, stop, chosen=None, seed=7):
        return sample(
            whole["weights"],
            chosen or tiny(),
            classes=CLASSES,
            shape=SHAPE,
            seed=seed,
            start=start,
            stop=stop,
        )

    def test_cuts_change_nothing(self, drawn):
        images, labels = self.pool(drawn, 0, 20)
        assert images.shape == (20, *SHAPE) and images.dtype == np.uint8
        assert np.array_equal(labels, pools.labels(7, 0, 20, CLASSES))
        parts = [self.pool(drawn, *cut) for cut in ((0, 3), (3, 13), (13, 20))]
        assert np.array_equal(np.concatenate([images for images, _ in parts]), images)
        assert len(np.unique(images.reshape(20, -1), axis=0)) == 20

    def test_another_batch_changes_rounding_alone(self, drawn):
        one, two = (
            self.pool(drawn, 0, 12, tiny(sampler={"batch": batch}))[0].astype(int)
            for batch in (6, 4)
        )
        # Float32 sums of other shapes, in five steps; a pixel near a rounding edge moves a level.
        assert np.abs(one - two).max() <= 1 and (one != two).mean() < 0.02

    def test_noise_is_the_images_own_for_all_steps(self, drawn, monkeypatch):
        """Draws in the order of steps from the stream of (seed, i): image 8 is batch 6..11's
        third.
        """
        seen = []
        real = torch.randn
        monkeypatch.setattr(torch, "randn", lambda *a, **o: seen.append(real(*a, **o)) or seen[-1])
        self.pool(drawn, 8, 9)
        stream = torch.Generator().manual_seed(seed_of(7, "pool noise", 8))
        for step in range(5):
            assert torch.equal(seen[2][step], real(4, 4, 4, generator=stream))
        assert len(seen) == 6  # one call for all steps of an image

    def test_guidance_and_its_channels_matter(self, drawn):
        made = [
            self.pool(drawn, 0, 6, tiny(sampler=values))[0]
            for values in ({}, {"guidance": 1.0}, {"guidance_channels": "three"})
        ]
        assert not np.array_equal(made[0], made[1]) and not np.array_equal(made[0], made[2])

    def test_latents_are_scaled_back_by_what_was_measured(self, drawn):
        doubled = {**drawn["weights"], "measured.scale": 2 * drawn["weights"]["measured.scale"]}
        assert not np.array_equal(
            self.pool({"weights": doubled}, 0, 6)[0], self.pool(drawn, 0, 6)[0]
        )

    def test_progress_can_be_looked_at_in_the_second_stage(self, whole):
        options = {"classes": CLASSES, "shape": SHAPE, "seed": 1, "columns": 2}
        assert previews.preview(state(whole, 6), tiny(), **options).startswith(b"\x89PNG")
        assert previews.preview(state(whole, 2), tiny(), **options) is None

    def test_weights_of_another_network(self, whole):
        other = config({**tiny().model_dump(), "network": {"depth": 3, "width": 16, "heads": 2}})
        with pytest.raises(ValueError, match="weights: transformer_blocks.2.* is missing"):
            self.pool(whole, 0, 1, other)


class TestData:
    def test_a_mapped_file_trains_alike(self, whole, tmp_path):
        images, labels = data()
        np.save(tmp_path / "images.npy", images)
        mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
        made = registry.train(mapped, labels, tiny(), classes=CLASSES, seed=3)
        assert equal(made, whole["weights"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Files as diffusers writes them: each block holds a copy of the embedding."""
    from diffusers import AutoencoderKL, DiTTransformer2DModel

    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("released")
    network = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2, sample_size=4,
        num_embeds_ada_norm=7,
    )  # fmt: skip
    network.transformer_blocks[1].norm1.emb.load_state_dict(
        network.transformer_blocks[0].norm1.emb.state_dict()
    )
    network.save_pretrained(folder / "transformer")
    AutoencoderKL(
        in_channels=1, out_channels=1, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        mid_block_add_attention=False, scaling_factor=0.3,
    ).save_pretrained(folder / "vae")  # fmt: skip
    return folder


class TestReleased:
    def released(self, folder, **values):
        mapping = {**tiny().model_dump(), "setting": "open", "weights": str(folder), **values}
        return config(mapping)

    def taken(self, chosen):
        nothing = np.zeros((0, *SHAPE), np.uint8), np.zeros(0, np.int64)
        return registry.train(*nothing, chosen, classes=CLASSES, seed=0)

    def test_a_folder_is_read_and_sampled(self, folder):
        from diffusers import DiTTransformer2DModel

        weights = self.taken(self.released(folder))
        assert float(weights["measured.scale"]) == pytest.approx(0.3)
        original = DiTTransformer2DModel.from_pretrained(folder / "transformer")
        network = loaded(part_of(weights, "dit"), self.released(folder), side=4).eval()
        for name, p in network.named_parameters():
            assert torch.equal(p, original.get_parameter(name))
        images, _ = sample(
            weights,
            self.released(folder),
            classes=CLASSES,
            shape=SHAPE,
            seed=1,
            start=0,
            stop=6,
            device="cpu",
        )
        indices = self.released(folder, class_indices=[6, 5, 4, 3, 2])
        others, _ = sample(weights, indices, classes=CLASSES, shape=SHAPE, seed=1, start=0, stop=6)
        assert images.std() > 0 and not np.array_equal(images, others)

    def test_a_file_beside_an_autoencoders_folder(self, folder):
        file = str(folder / "transformer" / "diffusion_pytorch_model.safetensors")
        vae = {**tiny().vae.model_dump(), "weights": str(folder / "vae")}
        assert equal(self.taken(self.released(file, vae=vae)), self.taken(self.released(folder)))

    def test_the_ids_follow_the_files_not_the_paths(self, folder, tmp_path):
        copy = shutil.copytree(folder, tmp_path / "copy")
        one, two = self.released(folder).training_payload(), self.released(copy).training_payload()
        assert one == two and set(one["files_sha256"]) == {"transformer", "vae", "vae_config"}
        text = (copy / "vae" / "config.json").read_text().replace("0.3", "0.31")
        (copy / "vae" / "config.json").write_text(text)
        assert self.released(copy).training_payload() != one

    def test_what_is_missing_or_does_not_fit(self, folder, tmp_path):
        with pytest.raises(ValueError, match="holds no vae/"):
            self.released(folder / "transformer").check(8, 8, 1, 5, 0)
        with pytest.raises(ValueError, match="no folder or file"):
            self.released(tmp_path / "nowhere").check(8, 8, 1, 5, 0)
        (tmp_path / "vae").mkdir()
        with pytest.raises(
            ValueError, match="there is no file .*diffusion_pytorch_model.safetensors"
        ):
            self.released(tmp_path).check(8, 8, 1, 5, 0)
        with pytest.raises(ValueError, match="class_indices has 2 entries, the dataset 5"):
            self.released(folder, class_indices=[0, 1]).check(8, 8, 1, 5, 0)
        with pytest.raises(ValueError, match="class 7 is not one of the network's 7"):
            self.taken(self.released(folder, class_indices=[0, 1, 2, 3, 7]))
        with pytest.raises(ValueError, match="class 7 is not one of the network's 7"):
            from_files(self.released(folder), shape=SHAPE, classes=8)
        with pytest.raises(ValueError, match="transformer_blocks.2"):
            self.taken(self.released(folder, network={"depth": 3, "width": 16, "heads": 2}))
        with pytest.raises(ValueError, match="autoencoder: .*has shape"):
            self.taken(self.released(folder, vae={**tiny().vae.model_dump(), "base_channels": 12}))

    def test_pickles_converted_as_the_documentation_says(self, folder, tmp_path, monkeypatch):
        """Files as released: pickles, embeddings that share their memory, no scaling_factor."""
        from safetensors.torch import load_file

        (text,) = re.findall(
            r"```python\n(import json.*?)```", DOCUMENTATION.read_text(), flags=re.DOTALL
        )
        first, second = (f"transformer_blocks.{i}.norm1.emb." for i in (0, 1))
        for part in ("transformer", "vae"):
            (tmp_path / part).mkdir()
            weights = load_file(folder / part / WEIGHTS_NAME)
            weights = {name: weights[name.replace(second, first)] for name in weights}
            torch.save(weights, tmp_path / part / "diffusion_pytorch_model.bin")
        facts = json.loads((folder / "vae" / "config.json").read_text())
        (tmp_path / "vae" / "config.json").write_text(
            json.dumps({k: v for k, v in facts.items() if k != "scaling_factor"})
        )
        with pytest.raises(
            ValueError, match="no file .*transformer.*safetensors'; docs/dit.md says how to convert"
        ):
            self.released(tmp_path).check(8, 8, 1, 5, 0)
        monkeypatch.chdir(tmp_path)
        exec(text, {})
        self.released(tmp_path).check(8, 8, 1, 5, 0)
        have, want = self.taken(self.released(tmp_path)), self.taken(self.released(folder))
        assert float(have.pop("measured.scale")) == pytest.approx(0.18215)
        del want["measured.scale"]
        assert equal(have, want)

    @pytest.mark.parametrize("scale", [None, 0, "0.3"])
    def test_a_scaling_factor_that_is_none(self, folder, tmp_path, scale):
        copy = shutil.copytree(folder, tmp_path / "copy")
        facts = json.loads((copy / "vae" / "config.json").read_text()) | {"scaling_factor": scale}
        (copy / "vae" / "config.json").write_text(json.dumps(facts))
        with pytest.raises(
            ValueError, match=f"scaling_factor {scale!r}; write the positive factor .*0.18215"
        ):
            self.released(copy).check(8, 8, 1, 5, 0)

    def test_blocks_with_embeddings_of_their_own(self, folder, tmp_path):
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "transformer" / "diffusion_pytorch_model.safetensors")
        name = "transformer_blocks.1.norm1.emb.timestep_embedder.linear_1.bias"
        weights[name] = weights[name] + 1
        save_file(weights, tmp_path / "other.safetensors")
        vae = {**tiny().vae.model_dump(), "weights": str(folder / "vae")}
        with pytest.raises(ValueError, match="all blocks share one embedding"):
            self.taken(self.released(tmp_path / "other.safetensors", vae=vae))


@pytest.mark.long
def test_two_workers_equal_one(whole, in_two_workers):
    """Equal to one process but for the order of sums; a worker group's state resumes in one
    process.
    """
    zero, one = in_two_workers(tiny(compute={"microbatch": 3}), data(), classes=CLASSES, seed=3)
    assert equal(zero["weights"], one["weights"])
    for part in ("dit", "vae"):
        assert furthest(part_of(zero["weights"], part), part_of(whole["weights"], part)) < 2e-4
    resumed = trained(tiny(), resume=zero["states"][5])
    assert furthest(resumed, whole["weights"]) < 1e-3


def test_it_learns_which_class_is_bright():
    """Two classes, dark and bright, with noise: samples of each are of its brightness."""
    rng = np.random.default_rng(0)
    labels = np.arange(64, dtype=np.int64) % 2
    images = (
        (60 + 130 * labels[:, None, None, None] + rng.normal(0, 10, (64, *SHAPE)))
        .clip(0, 255)
        .astype(np.uint8)
    )
    mapping = tiny(
        vae_steps=40, steps=200, batch=32, lr=5e-3, lr_decay_part=0.5, ema_decay=0.9
    ).model_dump()
    mapping["network"] |= {"depth": 1, "width": 64}
    mapping["vae"]["training"]["lr"] = 5e-3
    mapping["sampler"] = {"steps": 25, "guidance": 1.5, "batch": 20}
    chosen, rows = config(mapping), []
    weights = train(images, labels, chosen, classes=2, seed=0, log=rows.append)
    mse = [row["mse"] for row in rows if row["mse"] is not None]
    assert mse[-1] < 0.4 * mse[0]  # the first is a mean over steps 1 to 10
    made, classes = sample(weights, chosen, classes=2, shape=SHAPE, seed=1, start=0, stop=40)
    means = [made[classes == c].mean() for c in (0, 1)]
    assert abs(means[0] - 60) < 20 and abs(means[1] - 190) < 20


@pytest.mark.slow
def test_compiled_equals_eager(whole):
    made = trained(tiny(compute={"compile": "on"}))
    assert furthest(part_of(made, "dit"), part_of(whole["weights"], "dit")) < 2e-4


@pytest.mark.gpu
def test_a_gpu_trains_and_samples():
    weights = trained(tiny(), device="cuda")
    images, _ = sample(
        weights, tiny(), classes=CLASSES, shape=SHAPE, seed=1, start=0, stop=6, device="cuda"
    )
    assert all(torch.isfinite(value).all() for value in weights.values()) and images.shape == (
        6,
        *SHAPE,
    )
