"""Quality: distances and scores against closed forms, pytorch-fid itself, and plain computations in
memory.
"""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from equigrid.generators.quality import measure, networks
from equigrid.generators.quality.config import DINOV2, INCEPTION, METRICS, VIT, QualityConfig
from equigrid.generators.quality.extractors import Extractor
from equigrid.generators.quality.neighbours import nearest
from equigrid.generators.quality.statistics import (
    Diversity,
    Gaussian,
    InceptionScore,
    Moments,
    frechet_distance,
)

RNG = np.random.default_rng(0)


def parts_of(array: np.ndarray, sizes=(1, 7, 20)) -> list[np.ndarray]:
    return np.split(array, np.cumsum(sizes))


class TestFrechetDistance:
    def test_equal_covariances_leave_the_means(self):
        covariance = np.cov(RNG.normal(size=(100, 12)), rowvar=False)
        shift = RNG.normal(size=12)
        one, other = Gaussian(np.zeros(12), covariance), Gaussian(shift, covariance)
        assert frechet_distance(one, other) == pytest.approx(shift @ shift)
        assert frechet_distance(one, one) == pytest.approx(0, abs=1e-10)

    def test_diagonal_covariances(self):
        a, b = RNG.uniform(0.1, 3, size=(2, 9))
        one, other = Gaussian(np.zeros(9), np.diag(a)), Gaussian(np.zeros(9), np.diag(b))
        assert frechet_distance(one, other) == pytest.approx(((np.sqrt(a) - np.sqrt(b)) ** 2).sum())

    def test_equals_pytorch_fid_on_statistics(self):
        from pytorch_fid.fid_score import calculate_frechet_distance

        x = RNG.normal(size=(300, 40))
        y = RNG.normal(size=(200, 40)) @ RNG.normal(size=(40, 40)) + 0.3
        statistics = [(f.mean(axis=0), np.cov(f, rowvar=False)) for f in (x, y)]
        have = frechet_distance(*(Gaussian(*s) for s in statistics))
        assert have == pytest.approx(
            calculate_frechet_distance(*statistics[0], *statistics[1]), rel=1e-9
        )

    def test_fewer_images_than_features(self):
        """Covariances of rank 9 in 30 dimensions that share no direction: nothing of the product is
        left.
        """
        x, y = np.zeros((2, 10, 30))
        x[:, :9], y[:, 9:18] = RNG.normal(size=(2, 10, 9))
        a, b = (Gaussian(f.mean(axis=0), np.cov(f, rowvar=False)) for f in (x, y))
        want = ((a.mean - b.mean) ** 2).sum() + np.trace(a.covariance) + np.trace(b.covariance)
        assert frechet_distance(a, b) == pytest.approx(want)

    def test_dimensions_must_agree(self):
        with pytest.raises(ValueError, match="3 and of 4"):
            frechet_distance(Gaussian(np.zeros(3), np.eye(3)), Gaussian(np.zeros(4), np.eye(4)))


class TestStreaming:
    def test_moments(self):
        features = (1000 + RNG.normal(size=(60, 5))).astype(np.float32)
        moments = Moments()
        for part in parts_of(features):
            moments.add(part)
        have = moments.gaussian()
        assert np.allclose(have.mean, features.astype(float).mean(axis=0), rtol=1e-12)
        assert np.allclose(have.covariance, np.cov(features.astype(float), rowvar=False), rtol=1e-7)
        with pytest.raises(ValueError, match="at least 2"):
            Moments().gaussian()

    def test_statistics_file(self, tmp_path):
        given = Gaussian(RNG.normal(size=4), np.eye(4))
        (tmp_path / "s.npz").write_bytes(given.to_npz())
        with np.load(tmp_path / "s.npz") as arrays:  # as pytorch-fid reads it
            assert np.array_equal(arrays["mu"], given.mean)
            assert np.array_equal(arrays["sigma"], given.covariance)
        assert np.array_equal(Gaussian.from_npz(given.to_npz()).covariance, np.eye(4))

    def test_inception_score(self):
        p = RNG.dirichlet(np.ones(6) * 0.3, size=103)
        score = InceptionScore(total=103)
        for part in parts_of(p):
            score.add(part)
        want = []
        for k in range(10):
            part = [p[i] for i in range(103) if i * 10 // 103 == k]
            mean = np.mean(part, axis=0)
            want.append(np.exp(np.mean([np.sum(q * (np.log(q) - np.log(mean))) for q in part])))
        assert score.score() == pytest.approx((np.mean(want), np.std(want)))

    def test_inception_score_at_its_ends(self):
        sure, unsure = InceptionScore(100), InceptionScore(100)
        sure.add(np.eye(10)[np.arange(100) % 10])
        unsure.add(np.full((100, 10), 0.1))
        assert sure.score() == pytest.approx((10, 0))
        assert unsure.score() == pytest.approx((1, 0))
        with pytest.raises(ValueError, match="at least as many"):
            InceptionScore(9)
        with pytest.raises(ValueError, match="0 of the 100"):
            InceptionScore(100).score()

    def test_diversity(self):
        features, labels = 50 + RNG.normal(size=(60, 5)) * [1, 2, 3, 4, 5], RNG.integers(0, 3, 60)
        diversity = Diversity(classes=4)
        for part, own in zip(parts_of(features), parts_of(labels)):
            diversity.add(part, own)
        want = np.mean([features[labels == k].std(axis=0, ddof=1).mean() for k in range(3)])
        assert diversity.score() == pytest.approx(want)
        with pytest.raises(ValueError, match="at least 2 images"):
            Diversity(3).score()

    def test_nearest(self):
        training, samples = RNG.integers(0, 256, (40, 4, 4, 1)), RNG.integers(0, 256, (9, 4, 4, 1))
        samples[3] = training[31]
        found = nearest(samples, parts_of(training))
        distances = np.sqrt(((samples[:, None] - training[None]) ** 2).mean(axis=(2, 3, 4)))
        assert np.array_equal(found.indices, np.argsort(distances, axis=1)[:, :2])
        assert np.allclose(found.distances, np.sort(distances, axis=1)[:, :2])
        assert found.memorised == pytest.approx(1 / 9)

    @pytest.mark.parametrize("step", [3, 40, 80])
    def test_copies_of_images_that_the_base_holds_twice_are_memorised(self, step):
        """Within a part and across parts: the second nearest is the nearest that differs."""
        base = RNG.integers(0, 256, (40, 4, 4, 1), dtype=np.uint8)
        twice = np.concatenate([base, base])
        parts = [twice[i : i + step] for i in range(0, 80, step)]
        found, once = nearest(base, parts), nearest(base, [base])
        assert found.memorised == 1
        assert np.array_equal(found.indices, once.indices)
        assert np.allclose(found.distances, once.distances)
        others = RNG.integers(0, 256, (40, 4, 4, 1), dtype=np.uint8)
        assert nearest(others, parts).memorised == 0
        with pytest.raises(ValueError, match="at least 2 different training images, got 3, 1 of"):
            nearest(base, [base[:1], base[:1], base[:1]])

    def test_large_images_are_compared_reduced(self):
        training = RNG.integers(0, 256, (5, 130, 129, 3), dtype=np.uint8)
        found = nearest(training[2:3], [training])
        means = training[:, :129, :].reshape(5, 43, 3, 43, 3, 3).mean(axis=(2, 4))
        assert found.indices[0, 0] == 2
        assert found.distances[0, 0] == pytest.approx(0, abs=1e-4)
        wanted = np.sort(np.sqrt(((means - means[2]) ** 2).mean(axis=(1, 2, 3))))[1]
        assert found.distances[0, 1] == pytest.approx(wanted)


class TestConfig:
    def test_where_inception_makes_no_sense(self, tmp_path):
        file = tmp_path / "a.pth"
        file.write_bytes(b"")
        assert QualityConfig().networks(32, 32, 3) == {"inception": True, "vit": True}
        for image in ((8, 8, 1), (28, 28, 1), (16, 32, 3)):
            assert QualityConfig().networks(*image) == {"inception": False, "vit": False}
        asked = QualityConfig(inception="off", vit=str(file))
        assert asked.networks(8, 8, 1) == {"inception": False, "vit": str(file)}

    def test_networks_are_known_by_name_or_content(self, tmp_path):
        for name, content in (("one", b"same"), ("two", b"same"), ("three", b"else")):
            (tmp_path / name).write_bytes(content)
        made = [
            QualityConfig(inception=str(tmp_path / name)).payload(32, 32, 3)
            for name in ("one", "two", "three")
        ]
        assert made[0] == made[1] != made[2]
        assert len(made[0]["inception"]["sha256"]) == 64 and made[0]["vit"] == VIT
        assert QualityConfig().payload(32, 32, 3)["inception"] == INCEPTION
        assert QualityConfig().payload(8, 8, 1)["inception"] is None

    def test_the_names_are_those_of_the_downloads(self):
        import timm
        from pytorch_fid.inception import FID_WEIGHTS_URL

        assert FID_WEIGHTS_URL.endswith(f"/{INCEPTION}")
        assert timm.is_model_pretrained(VIT)

    def test_no_such_file(self):
        asked = QualityConfig(vit="none")
        with pytest.raises(ValueError, match="'none' is no file of weights; write auto, off, or"):
            asked.check_files()
        asked = QualityConfig(extractor_weights="none.pth")
        with pytest.raises(ValueError, match="extractor_weights: 'none.pth' is no file of weights"):
            asked.check_files()


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Random weights of pytorch-fid's network where its own download would put them."""
    from pytorch_fid.inception import FID_WEIGHTS_URL

    folder = tmp_path_factory.mktemp("torch_home") / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    made = networks._inception()
    generator = torch.Generator().manual_seed(0)
    for module in made.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(module.weight, generator=generator)
    path = folder / FID_WEIGHTS_URL.rsplit("/", 1)[-1]
    torch.save(made.state_dict(), path)
    return path


def images(n: int, seed: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    return np.minimum(small.repeat(4, axis=1).repeat(4, axis=2), 128 + 60 * seed).astype(np.uint8)


class TestInception:
    @pytest.mark.long
    def test_features_and_classes(self, weights, monkeypatch):
        from pytorch_fid.inception import InceptionV3

        monkeypatch.setenv("TORCH_HOME", str(weights.parents[2]))
        theirs = InceptionV3([3]).eval()
        given = images(2, 0)
        with torch.no_grad():
            want = theirs(torch.from_numpy(given).permute(0, 3, 1, 2) / 255)[0][:, :, 0, 0]
        mine = networks.Inception(str(weights))
        features, probabilities = mine(given)
        assert np.allclose(features, want.numpy(), rtol=1e-3, atol=1e-3 * want.std())
        assert probabilities.shape == (2, 1008)
        logits = want @ mine.network.fc.weight.T
        assert np.allclose(probabilities, logits.softmax(dim=1).numpy(), atol=1e-3)
        grey = given[..., :1]
        assert np.allclose(mine(grey)[0], mine(grey.repeat(3, axis=3))[0], atol=1e-4)

    def test_weights_of_another_network(self, tmp_path):
        torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
        with pytest.raises(ValueError, match="not this network's"):
            networks.Inception(str(tmp_path / "other.pth"))
        with pytest.raises(networks.NetworkMissing, match="no file"):
            networks.Inception(str(tmp_path / "none.pth"))

    @pytest.mark.slow
    def test_fid_equals_the_command_of_pytorch_fid(self, weights, tmp_path):
        """The same PNG files, the same weights, its own command line: equal within 1e-3."""
        from PIL import Image

        sets = {name: images(24, seed) for seed, name in enumerate(("one", "two"))}
        for name, pixels in sets.items():
            (tmp_path / name).mkdir()
            for i, image in enumerate(pixels):
                Image.fromarray(image).save(tmp_path / name / f"{i:03}.png")
        folders = [str(tmp_path / name) for name in sets]
        command = [
            sys.executable,
            "-m",
            "pytorch_fid",
            *folders,
            "--device",
            "cpu",
            "--num-workers",
            "0",
        ]
        environment = {**os.environ, "TORCH_HOME": str(weights.parents[2])}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        want = float(re.search(r"FID:\s+([-\d.e]+)", done.stdout)[1])
        assert want > 0.1
        network = networks.Inception(str(weights))
        summaries = []
        for pixels in sets.values():
            shards = [(part, np.zeros(len(part), int)) for part in np.split(pixels, [5, 16])]
            used = measure.Networks(inception=network)
            summaries.append(measure.summarise(shards, used, classes=1).inception.gaussian())
        assert frechet_distance(*summaries) == pytest.approx(want, abs=1e-3)


def pixels_as_features(given: np.ndarray) -> np.ndarray:
    return given.reshape(len(given), -1)[:, :6].astype(np.float32)


class TestReconstruction:
    """An autoencoder that halves contrast and moves brightness: its error is known, pixel by
    pixel.
    """

    def halved(self, given: np.ndarray) -> np.ndarray:
        return (given // 2 + 40).astype(np.uint8)

    def found(self, reconstruct, used: measure.Networks) -> tuple[dict, np.ndarray]:
        real = np.random.default_rng(1).integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
        shards = [(part, np.arange(len(part)) % 10) for part in np.split(real, [20, 41])]
        return measure.reconstruction(lambda: iter(shards), reconstruct, used, classes=10), real

    def test_by_hand(self):
        row, real = self.found(self.halved, measure.Networks(features=pixels_as_features))
        assert (
            set(row)
            == {"reconstruction_psnr_db", "reconstruction_feature_distance"}
            <= set(measure.COLUMNS)
        )
        error = np.mean((real.astype(float) - self.halved(real)) ** 2)
        assert row["reconstruction_psnr_db"] == pytest.approx(20 * np.log10(255 / np.sqrt(error)))
        before, after = (
            pixels_as_features(given).astype(float) for given in (real, self.halved(real))
        )
        fits = [Gaussian(f.mean(axis=0), np.cov(f, rowvar=False)) for f in (after, before)]
        assert row["reconstruction_feature_distance"] == pytest.approx(frechet_distance(*fits))

    def test_a_perfect_copy(self):
        inception = lambda given: (pixels_as_features(given), np.full((len(given), 4), 0.25))  # noqa: E731
        row, _ = self.found(np.copy, measure.Networks(inception=inception, vit=pixels_as_features))
        assert row["reconstruction_fid"] == pytest.approx(0, abs=1e-5)
        assert row["reconstruction_psnr_db"] > 100
        assert "reconstruction_feature_distance" not in row


class TestRow:
    def sets(self, seed: int, n: int = 60):
        rng = np.random.default_rng(seed)
        return rng.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8), np.arange(n) % 10

    def row(self, pool, real, networks, **options):
        shards = lambda given: lambda: zip(*(np.split(part, [20, 41]) for part in given))  # noqa: E731
        return measure.quality(
            shards(pool), shards(real), networks, classes=10, n_pool=len(pool[0]), **options
        )

    def test_own_features_and_neighbours(self):
        used = measure.Networks(features=pixels_as_features, missing=("no Inception here",))
        row = self.row(self.sets(1), self.sets(2), networks=used, n_neighbours=30)
        assert tuple(row) == measure.COLUMNS
        assert row["fid"] is row["inception_score"] is row["diversity"] is None
        assert row["note"] == "no Inception here"
        assert (row["n_images"], row["n_real"]) == (60, 60)
        fits = [pixels_as_features(self.sets(seed)[0]).astype(float) for seed in (1, 2)]
        gaussians = [Gaussian(f.mean(axis=0), np.cov(f, rowvar=False)) for f in fits]
        assert row["feature_distance"] == pytest.approx(frechet_distance(*gaussians))
        assert row["neighbour_distance"] == pytest.approx(row["neighbour_distance_real"], rel=0.1)
        assert row["memorised"] == 0

    def test_a_copied_training_set_is_memorised(self):
        given = self.sets(1)
        row = self.row(given, given, networks=measure.Networks(features=pixels_as_features))
        assert row["memorised"] == 1
        assert row["neighbour_distance"] == pytest.approx(0, abs=1e-5)
        assert row["feature_distance"] == pytest.approx(0, abs=1e-5)
        assert row["feature_diversity"] == row["feature_diversity_real"]

    def test_inception_and_vit_columns(self):
        def network(given):
            p = np.full((len(given), 4), 0.1)
            p[np.arange(len(given)), given[:, 0, 0, 0] % 4] = 0.7
            return pixels_as_features(given), p

        used = measure.Networks(inception=network, vit=pixels_as_features)
        row = self.row(self.sets(1), self.sets(2), networks=used)
        other = self.row(
            self.sets(1), self.sets(2), networks=measure.Networks(features=pixels_as_features)
        )
        assert row["fid"] == pytest.approx(other["feature_distance"])
        assert row["diversity"] == pytest.approx(other["feature_diversity"])
        assert 1 < row["inception_score"] < 4

    def test_what_was_not_measured_stays_empty_and_is_told(self):
        used = measure.Networks(features=pixels_as_features)
        row = self.row(
            self.sets(1),
            self.sets(2),
            networks=used,
            reference=measure.Reference(n=9),
            n_neighbours=0,
        )
        assert row["n_real"] == 9
        assert row["feature_distance"] is row["memorised"] is row["neighbour_distance"] is None
        assert row["feature_diversity"] > 0
        assert (
            row["note"]
            == "the real images were measured without features: measure them again for feature_distance"
        )

    def test_the_reference_is_measured_once_for_many_pools(self):
        used = measure.Networks(features=pixels_as_features, vit=pixels_as_features)
        kept = measure.Reference.from_npz(
            measure.measured([self.sets(2)], used, classes=10).to_npz()
        )
        anew = self.row(self.sets(1), self.sets(3), networks=used, reference=lambda: [self.sets(2)])
        assert self.row(self.sets(1), self.sets(3), networks=used, reference=kept) == anew
        other = self.row(self.sets(1), self.sets(3), networks=used)
        assert other["feature_distance"] != anew["feature_distance"]
        assert other["neighbour_distance"] == anew["neighbour_distance"]

    def test_a_sheet_of_neighbours(self):
        from PIL import Image

        pool, real = self.sets(1), self.sets(2)
        pool[0][3] = real[0][50]  # of the third part
        shards = lambda given: lambda: zip(*(np.split(part, [20, 41]) for part in given))  # noqa: E731
        sheet = np.array(
            Image.open(
                io.BytesIO(measure.neighbour_picture(shards(pool), shards(real), n=8, columns=4))
            )
        )
        cell = lambda i, j: sheet[4 * (9 * i + 1) :: 4, 4 * (9 * j + 1) :: 4][:8, :8]  # noqa: E731
        assert np.array_equal(cell(0, 3), pool[0][3, ..., 0])
        assert np.array_equal(cell(1, 3), cell(0, 3))
        distances = ((pool[0][:1].astype(float) - real[0]) ** 2).sum(axis=(1, 2, 3))
        assert np.array_equal(cell(1, 0), real[0][distances.argmin(), ..., 0])

    def test_a_pool_of_another_length(self):
        given = self.sets(1)
        with pytest.raises(ValueError, match="60 images, not the 61"):
            measure.quality(
                lambda: [given], lambda: [given], measure.Networks(), classes=10, n_pool=61
            )

    def test_missing_networks_become_messages(self, tmp_path):
        found = measure.load_networks(
            inception=str(tmp_path / "no.pth"), vit=str(tmp_path / "no.pth")
        )
        assert found.inception is found.vit is None
        assert len(found.missing) == 2


def test_vit_features_from_a_file(tmp_path):
    import timm

    name = "vit_tiny_patch16_224"
    network = timm.create_model(name, pretrained=False).eval()
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    vit = networks.ViT(name, weights=str(tmp_path / "vit.pth"))
    given = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    have = vit(given)
    # This model's mean and deviation.
    x = (torch.from_numpy(given).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    with torch.no_grad():
        want = network.forward_head(network.forward_features(x), pre_logits=True)
    assert have.shape == (2, 192)
    assert np.allclose(have, want.numpy(), atol=1e-4)
    assert vit(images(2, 0)).shape == (2, 192)


class TestMetricsConfig:
    """What `metrics` add to a payload, and nothing where they are not asked for."""

    def test_ids_are_as_before_without_metrics(self, tmp_path):
        (tmp_path / "w").write_bytes(b"x")
        before = {"inception": None, "vit": None, "features": True, "neighbours": 500, "rev": 1}
        assert QualityConfig().payload(8, 8, 1) == before
        asked = QualityConfig(extractor="dinov2", extractor_weights=str(tmp_path / "w"))
        assert asked.payload(8, 8, 1) == before  # an extractor of nothing
        assert asked.networks(8, 8, 1) == {"inception": False, "vit": False}

    def test_what_older_releases_recorded_is_still_known(self):
        """A grid's record holds the words of `quality`; those of a spec without metrics are as
        they were.
        """
        assert QualityConfig().identity() == {
            "images": None, "inception": "auto", "vit": "auto", "features": True, "neighbours": 500,
        }  # fmt: skip

    def test_order_and_repetition_make_no_other_id(self):
        one, other = (
            QualityConfig(metrics=names).payload(8, 8, 1)
            for names in (("recall", "fd"), ("fd", "recall", "fd"))
        )
        assert one == other and one["metrics"] == ["fd", "recall"]
        assert QualityConfig(metrics="all").metrics == METRICS

    def test_the_extractor_follows_from_the_images(self, tmp_path):
        grey, colour = (
            QualityConfig(metrics="all").payload(*shape)["extractor"]
            for shape in ((8, 8, 1), (32, 32, 3))
        )
        assert grey == {"name": "classifier"}
        assert colour == {"name": DINOV2, "size": 224}
        for name in ("one", "two"):
            (tmp_path / name).write_bytes(b"same")
        found = [
            QualityConfig(metrics="all", extractor_weights=str(tmp_path / name), extractor_size=98)
            for name in ("one", "two")
        ]
        payloads = [each.payload(8, 8, 1)["extractor"] for each in found]
        assert payloads[0] == payloads[1]  # known by content, not by place
        assert (payloads[0]["name"], payloads[0]["size"]) == (DINOV2, 98)
        assert len(payloads[0]["sha256"]) == 64
        assert found[0].networks(8, 8, 1)["extractor_weights"] == str(tmp_path / "one")

    def test_inception_as_extractor_is_loaded_also_where_it_would_not_be(self):
        asked = QualityConfig(metrics=("kid",), extractor="inception")
        assert asked.networks(8, 8, 1)["inception"] is True
        assert asked.payload(8, 8, 1)["inception"] == INCEPTION

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"metrics": ["fdd"]}, "'fd', 'kid', 'precision'"),
            ({"extractor": ""}, "'' names no network"),
            (
                {"extractor": "classifier", "extractor_size": 64},
                "extractor_size is for a network of timm's, not classifier",
            ),
            (
                {"extractor": "inception", "inception": "off", "metrics": ["fd"]},
                "inception: off turns it off",
            ),
        ],
    )
    def test_refused(self, given, message):
        with pytest.raises(ValueError, match=message):
            QualityConfig(**given)


class TestExtractor:
    NAME = "test_vit.r160_in1k"  # timm's own small network for tests: 160 pixels, 64 features

    @pytest.fixture
    def file(self, tmp_path_factory) -> Path:
        import timm

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = timm.create_model(self.NAME, pretrained=False)
        path = tmp_path_factory.mktemp("weights") / "vit.pth"
        torch.save(network.state_dict(), path)
        return path

    def test_features_are_the_networks_own(self, file):
        import timm
        from torchvision.transforms import v2

        given = images(3, 0)
        found = Extractor(self.NAME, weights=str(file))(given)
        plain = timm.create_model(self.NAME, pretrained=False, num_classes=0).eval()
        known = torch.load(file)
        plain.load_state_dict({k: v for k, v in known.items() if not k.startswith("head.")})
        data = timm.data.resolve_model_data_config(plain)
        change = v2.Compose([
            v2.ToDtype(torch.float32, scale=True),
            v2.Resize((160, 160), interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.Normalize(data["mean"], data["std"]),
        ])  # fmt: skip
        with torch.no_grad():
            want = plain(change(torch.from_numpy(given).permute(0, 3, 1, 2)))
        assert found.shape == want.shape and found.std() > 0
        # torchvision does not clamp what bicubic overshoots; the images are of large squares
        assert np.corrcoef(found.ravel(), want.numpy().ravel())[0, 1] > 0.999

    def test_at_another_size(self, file):
        smaller = Extractor(self.NAME, weights=str(file), size=96)
        assert smaller.size == (96, 96)
        assert (
            smaller(images(2, 0)).shape
            == Extractor(self.NAME, weights=str(file))(images(2, 0)).shape
        )

    def test_dinov2_is_the_published_network(self):
        """Its name and size are timm's, with weights, without registers."""
        import timm

        config = timm.get_pretrained_cfg(DINOV2)
        assert timm.is_model_pretrained(DINOV2) and config.hf_hub_id.startswith("timm/")
        assert config.mean == (0.485, 0.456, 0.406) and config.num_classes == 0
        with torch.device("meta"):
            network = timm.create_model(DINOV2, img_size=224)
        assert (network.embed_dim, network.num_reg_tokens, network.global_pool) == (
            1024,
            0,
            "token",
        )

    def test_refused(self, file, tmp_path):
        with pytest.raises(
            ValueError, match="extractor: timm knows no network 'test_vitt'; did you mean 'test_vit"
        ):
            Extractor("test_vitt")
        with pytest.raises(
            ValueError,
            match="timm has no weights 'test_vit.none'; there are weights test_vit.r160_in1k",
        ):
            Extractor("test_vit.none")
        torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
        with pytest.raises(
            ValueError, match="quality.extractor_weights: .*other.pth has no weights of test_vit"
        ) as error:
            Extractor(self.NAME, weights=str(tmp_path / "other.pth"))
        assert "\n" not in str(error.value)
        (tmp_path / "broken.pth").write_bytes(b"no pickle")
        with pytest.raises(
            ValueError, match="quality.extractor_weights: .*broken.pth has no weights"
        ):
            Extractor(self.NAME, weights=str(tmp_path / "broken.pth"))
