"""The Frechet distance and scores of samples."""

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from genesis_rl.data import Pack, PackWriter
from genesis_rl.evaluation.metrics.frechet import (
    FeatureStatistics,
    SampleScorer,
    feature_statistics,
    frechet_distance,
    pack_images,
    sampled_images,
)
from genesis_rl.models.base import BaseModel
from genesis_rl.slots import Decoded, Noise, Slots

D = 5


def features(n: int, seed: int, width: int = D) -> Tensor:
    """Return correlated features with non-zero mean, (n, width) float64."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(width, width))
    return torch.from_numpy(rng.normal(size=(n, width)) @ mixing + rng.normal(size=width))


def white(n: int, seed: int) -> Tensor:
    """Return features with sample mean 0 and sample covariance identity, exactly."""
    x = features(n, seed)
    x = x - x.mean(0)
    values, vectors = torch.linalg.eigh(x.T.cov())
    scaled: Tensor = x @ vectors / values.sqrt()
    return scaled


class MeanColours(nn.Module):
    """Three features: channel means of images in [0, 1] or, for torchmetrics, uint8."""

    width = num_features = 3
    fingerprint = "mean colours"

    def forward(self, images: Tensor) -> Tensor:
        scale = 255 if images.dtype == torch.uint8 else 1
        return images.double().mean((2, 3)) / scale


class Painter(BaseModel):
    """A scene model with uniformly coloured samples that depend on its training mode."""

    model_name = "painter"
    config = None

    def __init__(self, mean: float = 0.5) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(mean))
        self.modes: list[bool] = []

    @property
    def latent_sizes(self) -> tuple[int, int]:
        return 0, 3

    def sample(
        self,
        n: int,
        *,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        noise: Noise | None = None,
    ) -> Slots:
        self.modes.append(self.training)
        z_c = self.mean + temperature * torch.randn(n, 2, 3, generator=generator)
        return Slots(torch.zeros(n, 2, 0), z_c, torch.full((n, 2, 1, 4, 6), 0.5).log())

    def decode(self, slots: Slots) -> Decoded:
        return Decoded(slots.z_c[..., None, None].expand(-1, -1, -1, 4, 6), slots.log_pi)


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    images = np.random.default_rng(0).integers(256, size=(10, 4, 6, 3), dtype=np.uint8)
    with PackWriter(tmp_path / "pack", 10, (4, 6), masks=False) as writer:
        writer.write(images)
    return Pack.open(tmp_path / "pack")


def test_equal_features_are_at_distance_0() -> None:
    x = features(50, 0)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(x, x.flip(0)) == pytest.approx(0, abs=1e-12)
    x[:, 2] = 7  # a dead feature makes the covariance singular
    x[:, 4] = x[:, 0] - x[:, 1]
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-12)


def test_a_shift_costs_its_squared_length() -> None:
    x, shift = features(50, 0), torch.arange(D)
    assert frechet_distance(x, x + shift) == pytest.approx(30, abs=1e-9)


def test_gaussians_with_common_axes_have_a_closed_form() -> None:
    # |m|^2 + sum (s - t)^2, whatever the rotation.
    s, t = torch.tensor([[0.0, 1, 2, 3, 1e-3], [1.0, 1, 0, 5, 2e3]], dtype=torch.float64)
    rotation = torch.linalg.qr(features(D, 3))[0]
    a, b = white(40, 1) * s @ rotation, white(60, 2) * t @ rotation + 2
    expected = float((s - t).square().sum()) + 4 * D
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-10)  # CPUs differ beyond
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-10)  # CPUs differ beyond


@pytest.mark.smoke
def test_other_gaussians_agree_with_the_matrix_square_root() -> None:
    a, b = features(40, 1), features(60, 2)
    cov_a, cov_b = np.cov(a.numpy().T), np.cov(b.numpy().T)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    shift = float((a.mean(0) - b.mean(0)).square().sum())
    expected = shift + float(np.trace(cov_a + cov_b - 2 * root))
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(a.numpy(), b.tolist()) == pytest.approx(expected, rel=1e-10)


@pytest.mark.smoke
def test_torchmetrics_agrees() -> None:
    network = MeanColours()
    metric = FrechetInceptionDistance(network)
    generator = torch.Generator().manual_seed(0)
    streams = []
    for real, shape in ((True, (30, 3, 8, 6)), (False, (20, 3, 8, 6))):
        images = torch.randint(0, 200 + 50 * real, shape, generator=generator, dtype=torch.uint8)
        images[:, 1] = images[:, 1] // 2 + images[:, 0] // 2
        metric.update(images, real=real)
        streams.append((images.float() / 255).split(7))
    assert frechet_distance(*(feature_statistics(network, s) for s in streams)) == pytest.approx(
        float(metric.compute()), rel=1e-6
    )


def test_statistics_do_not_depend_on_the_batches() -> None:
    x = features(31, 0) + 1e6  # far from 0 the sum of squares would cancel
    statistics = FeatureStatistics()
    for batch in x.split([1, 0, 13, 17]):
        statistics.update(batch)
    assert (statistics.count, statistics.width) == (31, D)
    torch.testing.assert_close(statistics.mean, x.mean(0), rtol=1e-14, atol=0)
    torch.testing.assert_close(statistics.covariance, x.T.cov(), rtol=1e-8, atol=0)
    assert frechet_distance(statistics, x) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize(
    ("real", "generated", "message"),
    [
        (torch.randn(5, 5), torch.randn(9, 5), r"^real "),
        (torch.randn(9, 5), torch.randn(3, 5), r"^generated "),
        (torch.randn(9, 5), torch.randn(9, 4), r"^generated "),
        (torch.randn(9), torch.randn(9, 4), r"^features "),
        (torch.randn(9, 0), torch.randn(9, 0), r"^features "),
        (torch.randn(9, 2), torch.tensor([[0, torch.nan], [0, 0]]), r"^features "),
        (torch.full((9, 2), torch.inf), torch.randn(9, 2), r"^features "),
    ],
)
def test_bad_features_are_refused(real: Tensor, generated: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frechet_distance(real, generated)


def test_batches_of_other_widths_are_refused() -> None:
    statistics = FeatureStatistics()
    statistics.update(torch.randn(4, 3))
    with pytest.raises(ValueError, match=r"^features .*width"):
        statistics.update(torch.randn(4, 2))


def test_images_are_the_clipped_mixture_mean_of_prior_samples() -> None:
    model = Painter().train()
    batches = list(sampled_images(model, 70, seed=3))
    assert [len(batch) for batch in batches] == [64, 6]
    assert model.modes == [False, False] and model.training
    slots = model.sample(64, generator=torch.Generator().manual_seed(3))
    image = slots.z_c.mean(1).clamp(0, 1)[..., None, None].expand(-1, -1, 4, 6)
    torch.testing.assert_close(batches[0], image)
    assert batches[0].min() == 0 and batches[0].max() == 1
    again, other = next(sampled_images(model, 64, seed=3)), next(sampled_images(model, 64))
    assert torch.equal(again, batches[0]) and not torch.equal(other, again)
    cold = next(sampled_images(model, 64, temperature=0.1))
    assert cold.std() < 0.5 * other.std()


def test_samples_come_from_modules() -> None:
    class Wrapped:
        config = None

    with pytest.raises(TypeError, match=r"^model "):
        next(sampled_images(Wrapped(), 1))  # type: ignore[arg-type]


def test_the_scorer_compares_equal_numbers_of_images(pack: Pack) -> None:
    scorer = SampleScorer(MeanColours(), pack)
    assert scorer.num_images == 5
    x = torch.from_numpy(np.array(pack.images)).double() / 255
    colours = x.mean((1, 2))
    floor = frechet_distance(colours[:5], colours[5:])
    mean = colours[:5].mean(0).expand(5, 3)
    expected = {
        "real": floor,
        "shuffled_pixels": floor,  # the mean is independent of the order
        "mean_image": frechet_distance(colours[:5], mean),
    }
    assert scorer.references() == pytest.approx(expected, rel=1e-4)
    model = Painter(0.4)
    score = scorer(model, seed=2, temperature=0.5)
    images = torch.cat(list(sampled_images(model, 5, seed=2, temperature=0.5)))
    distance = frechet_distance(colours[:5], images.double().mean((2, 3)))
    assert score["distance"] == pytest.approx(distance, rel=1e-4)
    assert score["references"] == scorer.references() and score["num_images"] == 5
    assert score["features"] == "mean colours"


def test_shuffling_keeps_each_images_colours(pack: Pack) -> None:
    seen: list[Tensor] = []

    class Spy(MeanColours):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images)
            return super().forward(images)

    SampleScorer(Spy(), pack, 4).references()
    real, others, shuffled = seen[0], seen[1], seen[2]
    torch.testing.assert_close(real, next(pack_images(pack, 0, 4)))
    torch.testing.assert_close(others, next(pack_images(pack, 4, 4)))
    assert not torch.equal(shuffled, others)
    for image, mixed in zip(others, shuffled, strict=True):
        pixels, moved = (set(map(tuple, x.flatten(1).T.tolist())) for x in (image, mixed))
        assert pixels == moved


def test_a_broken_model_is_named(pack: Pack) -> None:
    scorer = SampleScorer(MeanColours(), pack)
    with pytest.raises(ValueError, match=r"^features "):
        scorer(Painter(float("nan")))


@pytest.mark.parametrize(
    ("num_images", "message"),
    [(3, r"^num_images "), (6, r"^num_images ")],
)
def test_too_few_images_are_refused(pack: Pack, num_images: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SampleScorer(MeanColours(), pack, num_images)
