"""Building blocks: equivalence of optimised and plain computations."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genesis_rl.models.blocks import (
    BroadcastDecoder,
    FlatDecoder,
    GatedConv,
    GatedDecoder,
    GatedEncoder,
    NormedConv,
    UNet,
    _kept_statistics,
    check_image_size,
    conv_norm,
    flatten_map,
    fold_batch_norm,
    gate,
)


def test_gate_is_glu_and_keeps_gradients_channels_last() -> None:
    x = torch.randn(2, 6, 4, 5).to(memory_format=torch.channels_last).requires_grad_()
    torch.testing.assert_close(gate(x), F.glu(x, 1))
    gate(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("stride", "upsample"), [(1, False), (2, False), (1, True), (2, True)])
def test_folding_leaves_the_function(stride: int, upsample: bool) -> None:
    layer = GatedConv(3, 4, stride, upsample=upsample)
    assert isinstance(layer.norm, nn.BatchNorm2d)
    nn.init.uniform_(layer.norm.weight, 0.5, 1.5)
    nn.init.normal_(layer.norm.bias)
    x = torch.randn(2, 3, 8, 12)
    for _ in range(3):
        layer(x)
    expected = layer.eval()(x)
    folded = fold_batch_norm(nn.Sequential(layer))
    torch.testing.assert_close(folded(x), expected, atol=1e-5, rtol=1e-4)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    fold_batch_norm(folded)  # a second time changes nothing
    torch.testing.assert_close(folded(x), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("kernels", "side"), [((3, 1), 24), ((5, 5), 36), ((5, 1), 32)])
def test_broadcast_decoder_convolves_the_tiled_latent(
    batch: int, kernels: tuple[int, int], side: int
) -> None:
    kernel, head = kernels
    decoder = BroadcastDecoder(7, 16, 6, 3, kernel_size=kernel, head_kernel_size=head).double()
    z = torch.randn(batch, 7, dtype=torch.float64)
    tiled = z[:, :, None, None].expand(-1, -1, side, side)
    coordinates = decoder.coordinates.expand(batch, -1, -1, -1)
    expected = decoder.head(decoder.body(decoder.first(torch.cat([tiled, coordinates], 1))))
    torch.testing.assert_close(decoder(z), expected)
    assert decoder(z).shape == (batch, 3, 16, 16)
    # The first coordinate is the row.
    assert decoder.coordinates[0, 0, -1, 0] == 1 and decoder.coordinates[0, 0, 0, -1] == -1


@pytest.mark.parametrize("image_size", [32, 64, 128])
def test_gated_networks_mirror_each_other(image_size: int) -> None:
    encoder = GatedEncoder(image_size, (4, 4, 6, 6, 6), 10)
    decoder = GatedDecoder(10, image_size, (6, 4, 4, 4, 4), 2)
    h = encoder(torch.rand(2, 3, image_size, image_size))
    assert h.shape == (2, 10)
    assert decoder(h).shape == (2, 2, image_size, image_size)


@pytest.mark.parametrize("stride", [1, 2])
def test_without_a_norm_there_is_a_bias(stride: int) -> None:
    layer = GatedConv(3, 4, stride, norm=False)
    assert layer.conv.bias is not None and isinstance(layer.norm, nn.Identity)
    assert GatedConv(3, 4, stride).conv.bias is None
    x = torch.randn(2, 3, 8, 12)
    expected = layer(x)
    assert torch.equal(fold_batch_norm(nn.Sequential(layer))(x), expected)


@pytest.mark.parametrize("image_size", [32, 64, 128])
@pytest.mark.parametrize("groups", [None, 2])
def test_unet_keeps_the_images_size(image_size: int, groups: int | None) -> None:
    unet = UNet(5, image_size, 4, groups=groups)
    x = torch.rand(2, 5, image_size, image_size)
    assert unet(x).shape == (2, 4, image_size, image_size)
    # 4x4 px at the bottleneck, with twice the channels.
    assert len(unet.down) == len(unet.up) == {32: 4, 64: 5, 128: 6}[image_size]
    assert unet.bottom_shape == (4, 4, 8)
    assert (unet(x.roll(1, 0)) - unet(x).roll(1, 0)).abs().max() < 1e-5


def test_one_channel_per_group_is_instance_norm() -> None:
    block = conv_norm(3, 6, 6)
    x = torch.randn(2, 3, 8, 12)
    expected = F.relu(F.instance_norm(block[0](x)))
    torch.testing.assert_close(block(x), expected)


def test_flatten_map_is_row_column_channel() -> None:
    x = torch.arange(24).view(1, 2, 3, 4)
    assert flatten_map(x)[0, :4].tolist() == [0, 12, 1, 13]


def test_image_size_is_checked() -> None:
    with pytest.raises(ValueError, match=r"^image_size "):
        check_image_size(48)


def test_a_flat_decoder_is_one_colour_everywhere() -> None:
    decoder = FlatDecoder(3, 8, 5, 2)
    out = decoder(torch.randn(4, 3))
    assert out.shape == (4, 2, 8, 8)
    assert torch.equal(out, out[:, :, :1, :1].expand(4, 2, 8, 8))
    assert len(out[:, 0, 0, 0].unique()) == 4


@torch.no_grad()
def test_any_normed_convolution_folds() -> None:
    torch.manual_seed(0)
    layer = NormedConv(3, 5, 3, 2)
    for _ in range(3):
        layer(torch.randn(4, 3, 8, 8))
    layer.norm.weight.uniform_(0.5, 2)  # type: ignore[operator]
    x = torch.randn(2, 3, 8, 8)
    expected = layer.eval()(x)
    assert expected.shape == (2, 5, 4, 4)
    torch.testing.assert_close(fold_batch_norm(layer)(x), expected)
    assert isinstance(layer.norm, torch.nn.Identity)


def test_recomputing_leaves_statistics_of_any_batch_norm() -> None:
    """SyncBatchNorm is not a subclass of BatchNorm2d."""
    norm = torch.nn.SyncBatchNorm(2)
    with _kept_statistics(torch.nn.Sequential(norm)):
        assert norm.momentum == 0
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
    assert norm.momentum == 0.1 and norm.num_batches_tracked == 0
