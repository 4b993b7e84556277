"""Batches: a pure function of the step, every image once per epoch, equal from RAM and disk."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from genesis_rl.data import feed
from genesis_rl.data.feed import ImageFeed, batch_indices
from genesis_rl.data.pack import Pack, PackWriter

CPU = torch.device("cpu")
N, H, W = 11, 4, 6


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    images = np.random.default_rng(0).integers(256, size=(N, H, W, 3), dtype=np.uint8)
    images[0], images[1] = 0, 255
    with PackWriter(tmp_path / "pack", N, (H, W), masks=False) as writer:
        writer.write(images)
    return Pack.open(tmp_path / "pack")


def epoch(number: int, batch_size: int, num_images: int = N, seed: int = 0) -> Tensor:
    steps = num_images // batch_size
    return torch.cat(
        [batch_indices(number * steps + i, batch_size, num_images, seed) for i in range(steps)]
    )


def test_indices_are_a_function_of_step_and_seed() -> None:
    for step in (0, 3, 1000):
        a, b = (batch_indices(step, 4, 100, seed=5) for _ in range(2))
        assert torch.equal(a, b)
        assert a.shape == (4,) and a.dtype == torch.int64
        torch.manual_seed(step)  # independent of the global generator
        np.random.seed(step)
        assert torch.equal(batch_indices(step, 4, 100, seed=5), a)
        assert not torch.equal(batch_indices(step, 4, 100, seed=6), a)


@pytest.mark.parametrize("batch_size", [1, 4, 12])
def test_an_epoch_has_every_image_once(batch_size: int) -> None:
    for number in range(3):
        assert epoch(number, batch_size, num_images=12).sort().values.tolist() == list(range(12))


def test_images_that_fill_no_batch_are_left_out_of_an_epoch_only() -> None:
    seen = [epoch(number, 4) for number in range(30)]
    for indices in seen:
        assert len(indices) == len(set(indices.tolist())) == 8
    assert set(torch.cat(seen).tolist()) == set(range(N))


def test_epochs_have_different_orders() -> None:
    orders = {tuple(epoch(number, 5, num_images=100).tolist()) for number in range(10)}
    assert len(orders) == 10


def test_an_epochs_order_is_drawn_once() -> None:
    feed._order.cache_clear()
    for step in range(200):
        batch_indices(step, 4, 400, seed=0)
    assert feed._order.cache_info().misses == 2  # one permutation per epoch


def test_one_batch_may_be_the_whole_epoch() -> None:
    assert sorted(batch_indices(7, N, N, 0).tolist()) == list(range(N))


@pytest.mark.parametrize("indices", [[3], [1, 0, 5, 1]])
def test_batches_are_floats_in_channels_last(pack: Pack, indices: list[int]) -> None:
    batch = ImageFeed(pack, CPU)(torch.tensor(indices))
    assert batch.shape == (len(indices), 3, H, W) and batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)
    want = torch.from_numpy(pack.images[indices]).permute(0, 3, 1, 2) / 255
    assert torch.equal(batch, want)


def test_values_fill_zero_to_one(pack: Pack) -> None:
    batches = ImageFeed(pack, CPU)
    assert batches.num_images == N
    batch = batches(torch.arange(N))
    assert (batch[0] == 0).all() and (batch[1] == 1).all()
    assert batch.min() == 0 and batch.max() == 1


def test_a_batch_is_the_callers_own(pack: Pack) -> None:
    batches = ImageFeed(pack, CPU)
    batches(torch.arange(N)).zero_()
    assert (batches(torch.tensor([1])) == 1).all()


def test_images_too_big_for_ram_stay_mapped(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    in_ram = ImageFeed(pack, CPU)
    assert in_ram._mapped is None
    monkeypatch.setattr(feed, "_RAM_BYTES", pack.images.nbytes)
    mapped = ImageFeed(pack, CPU)
    assert isinstance(mapped._mapped, np.memmap) and mapped._images.numel() == 0
    for step in range(4):
        indices = batch_indices(step, 4, N, 0)
        batch = mapped(indices)
        assert torch.equal(batch, in_ram(indices))
        assert batch.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kept", ["gpu", "ram", "disk"])
def test_the_gpu_gets_the_same(pack: Pack, monkeypatch: pytest.MonkeyPatch, kept: str) -> None:
    indices = torch.tensor([4, 2, 2])
    want = ImageFeed(pack, CPU)(indices)
    if kept != "gpu":
        monkeypatch.setattr(feed, "_GPU_SHARE", 0.0)
    if kept == "disk":
        monkeypatch.setattr(feed, "_RAM_BYTES", 0)
    batches = ImageFeed(pack, torch.device("cuda"))
    assert batches._images.is_cuda == (kept == "gpu")
    batch = batches(indices)
    assert batch.is_cuda
    torch.testing.assert_close(batch.cpu(), want)
