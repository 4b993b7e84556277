"""Building blocks: gated convolutions, broadcast decoder, U-Net, component encoder.

All use channels_last activations: a convolution over a whole map in the paper is a Linear over the
map flattened in (row, column, channel) order, and a stride-1 transposed convolution is an ordinary
one.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # also of SyncBatchNorm
from torch.utils.checkpoint import checkpoint

# Strides of the five gated layers by image size.
GATED_STRIDES = {32: (1, 2, 1, 2, 1), 64: (1, 2, 1, 2, 1), 128: (2, 2, 2, 1, 1)}


def check_image_size(image_size: int) -> None:
    """Raise ValueError unless the gated encoder supports an image size."""
    if image_size not in GATED_STRIDES:
        raise ValueError(f"image_size must be one of {sorted(GATED_STRIDES)}, got {image_size}.")


def bottleneck_side(image_size: int) -> int:
    """Return the side of the feature map after the five gated layers, in pixels."""
    return image_size // math.prod(GATED_STRIDES[image_size])


def gate(y: Tensor) -> Tensor:
    """Apply a gated linear unit: first half of the channels times sigmoid of the second half.

    F.glu is not used because its gradient is contiguous NCHW, which disables the fast channels_last
    path of batch norm's backward pass.
    """
    feature, control = y.chunk(2, dim=1)
    return feature * torch.sigmoid(control)


def flatten_map(x: Tensor) -> Tensor:
    """Flatten (B, C, H, W) to (B, H*W*C), without a copy for a channels_last tensor."""
    return x.permute(0, 2, 3, 1).flatten(1)


def coordinate_map(side: int) -> Tensor:
    """Return rows and columns of a square map in [-1, 1], shape (1, 2, side, side)."""
    line = torch.linspace(-1, 1, side)
    return torch.stack(torch.meshgrid(line, line, indexing="ij"))[None]


class NormedConv(nn.Module):
    """Convolution without bias, batch norm, ReLU; padded so that stride 1 keeps the size."""

    conv: nn.Conv2d | nn.ConvTranspose2d
    norm: nn.Module

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int) -> None:
        """Build from channel counts, the kernel's side (odd) and the stride."""
        super().__init__()
        padding = kernel_size // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H', W')."""
        return F.relu(self.norm(self.conv(x)))

    @torch.no_grad()
    def fold(self) -> None:
        """Fold the batch norm's running statistics into the convolution (inference only)."""
        norm = self.norm
        if not isinstance(norm, _BatchNorm):
            return
        if norm.running_mean is None or norm.running_var is None:
            raise ValueError("norm must be a batch norm with running statistics, got none.")
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        channel_dim = 1 if isinstance(self.conv, nn.ConvTranspose2d) else 0
        shape = [1, 1, 1, 1]
        shape[channel_dim] = -1
        self.conv.weight.mul_(scale.view(shape))
        self.conv.bias = nn.Parameter(norm.bias - norm.running_mean * scale, requires_grad=False)
        self.norm = nn.Identity()


class GatedConv(NormedConv):
    """5x5 convolution to 2 * out channels, batch norm, gate; ``upsample`` transposes it.

    The convolution has a bias only without batch norm, in which it would cancel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        upsample: bool = False,
        norm: bool = True,
    ) -> None:
        """Build from input channels, channels after the gate, and the (down or up) stride."""
        nn.Module.__init__(self)  # builds its own layers
        bias = not norm
        if upsample and stride > 1:
            self.conv = nn.ConvTranspose2d(
                in_channels, 2 * out_channels, 5, stride, 2, output_padding=stride - 1, bias=bias
            )
        else:
            self.conv = nn.Conv2d(in_channels, 2 * out_channels, 5, stride, 2, bias=bias)
        self.norm = nn.BatchNorm2d(2 * out_channels) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, H, W) to (B, C_out, H', W')."""
        return gate(self.norm(self.conv(x)))


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """Fold every batch norm of a model into its convolution, in place, for inference.

    Returns:
        The same model, in eval mode; it can no longer be trained.
    """
    model.eval()
    for module in model.modules():
        if isinstance(module, NormedConv):
            module.fold()
    return model


@contextmanager
def _kept_statistics(module: nn.Module) -> Iterator[None]:
    """Keep the running statistics of batch norms unchanged during a pass in training mode."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked = norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, batches


def recomputed(module: nn.Module, x: Tensor) -> Tensor:
    """Apply a module with activation checkpointing: recompute activations in the backward pass.

    Costs a third more computation for a fraction of the memory. Running statistics of batch norms
    are updated once.
    """
    out: Tensor = checkpoint(
        module,
        x,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), _kept_statistics(module)),
    )
    return out


class GatedEncoder(nn.Module):
    """Encoder of images: five gated 5x5 convolutions and a gated layer over the whole map."""

    def __init__(
        self, image_size: int, channels: Sequence[int], feature_size: int, *, norm: bool = True
    ) -> None:
        """Build from the image's side in pixels, five channel counts and the features' width."""
        super().__init__()
        layers = []
        in_channels = 3
        for out_channels, stride in zip(channels, GATED_STRIDES[image_size], strict=True):
            layers.append(GatedConv(in_channels, out_channels, stride, norm=norm))
            in_channels = out_channels
        self.convs = nn.Sequential(*layers)
        side = bottleneck_side(image_size)
        self.head = nn.Linear(side * side * in_channels, 2 * feature_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, feature_size)."""
        features: Tensor = self.head(flatten_map(self.convs(x)))
        return gate(features)


class GatedDecoder(nn.Module):
    """Decoder that mirrors `GatedEncoder` and ends in a 1x1 convolution."""

    def __init__(
        self,
        latent_size: int,
        image_size: int,
        channels: Sequence[int],
        out_channels: int,
        *,
        norm: bool = True,
    ) -> None:
        """Build from the latent's width, the image's side, and channels of layers and output."""
        super().__init__()
        self.side = bottleneck_side(image_size)
        # Channels of the map at the lowest resolution.
        self.stem_channels = channels[0]
        self.stem = nn.Linear(latent_size, self.side**2 * 2 * self.stem_channels)
        # Initialised as the equivalent transposed convolution (fan-in 2 * C * side^2).
        bound = 1 / math.sqrt(2 * self.stem_channels * self.side**2)
        for parameter in self.stem.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        layers = []
        in_channels = self.stem_channels
        for width, stride in zip(channels, reversed(GATED_STRIDES[image_size]), strict=True):
            layers.append(GatedConv(in_channels, width, stride, upsample=True, norm=norm))
            in_channels = width
        self.convs = nn.Sequential(*layers)
        self.head = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, z: Tensor) -> Tensor:
        """Map (N, latent_size) to (N, out_channels, H, W)."""
        y = self.stem(z).view(len(z), self.side, self.side, 2 * self.stem_channels)
        out: Tensor = self.head(self.convs(gate(y.permute(0, 3, 1, 2))))
        return out


class ComponentEncoder(nn.Module):
    """Encoder of masked images: stride-2 3x3 convolutions and two linear layers."""

    def __init__(
        self,
        image_size: int,
        channels: Sequence[int],
        hidden_size: int,
        out_size: int,
        activation: type[nn.Module] = nn.ELU,
        in_channels: int = 4,
    ) -> None:
        """Build from the image's side, channel counts, and widths of hidden layer and output."""
        super().__init__()
        layers: list[nn.Module] = []
        side = image_size
        for out_channels in channels:
            layers += [nn.Conv2d(in_channels, out_channels, 3, 2, 1), activation()]
            in_channels, side = out_channels, (side + 1) // 2
        self.convs = nn.Sequential(*layers)
        self.hidden = nn.Linear(side * side * in_channels, hidden_size)
        self.activation = activation()
        self.head = nn.Linear(hidden_size, out_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W), by default log masks and images, to (N, out_size)."""
        out: Tensor = self.head(self.activation(self.hidden(flatten_map(self.convs(x)))))
        return out


class SlotCorrector(ComponentEncoder):
    """Correction of a slot's posterior from image, mask and responsibilities."""

    def __init__(
        self, image_size: int, channels: Sequence[int], hidden_size: int, out_size: int
    ) -> None:
        """Initialise the last layer to zeros, so that the initial correction is 0."""
        super().__init__(image_size, channels, hidden_size, out_size, in_channels=5)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)


class BroadcastDecoder(nn.Module):
    """Spatial broadcast decoder (Watters et al. 2019).

    Four 3x3 convolutions and a 1x1 convolution as the head by default, none of them padded.

    The latent is the same at every position, so that the first convolution is computed as a linear
    map of z plus the convolution of the two coordinate channels, which is the same for all slots:
    a twentieth of the cost of convolving the broadcast latent.
    """

    coordinates: Tensor

    def __init__(
        self,
        latent_size: int,
        image_size: int,
        channels: int,
        out_channels: int,
        layers: int = 4,
        activation: type[nn.Module] = nn.ELU,
        kernel_size: int = 3,
        head_kernel_size: int = 1,
    ) -> None:
        """Build from the latent's width, the image's side, and channels of layers and output."""
        super().__init__()
        self.latent_size = latent_size
        border = layers * (kernel_size - 1) + head_kernel_size - 1
        coordinates = coordinate_map(image_size + border)
        self.register_buffer("coordinates", coordinates, persistent=False)
        self.first = nn.Conv2d(latent_size + 2, channels, kernel_size)
        body: list[nn.Module] = [activation()]
        for _ in range(layers - 1):
            body += [nn.Conv2d(channels, channels, kernel_size), activation()]
        self.body = nn.Sequential(*body)
        self.head = nn.Conv2d(channels, out_channels, head_kernel_size)

    def forward(self, z: Tensor) -> Tensor:
        """Map (N, latent_size) to (N, out_channels, H, W), unbounded."""
        weight = self.first.weight
        from_z = F.linear(z, weight[:, : self.latent_size].sum((2, 3)), self.first.bias)
        from_position = F.conv2d(self.coordinates, weight[:, self.latent_size :])
        from_position = from_position.contiguous(memory_format=torch.channels_last)
        out: Tensor = self.head(self.body(from_z[:, :, None, None] + from_position))
        return out


class FlatDecoder(nn.Module):
    """Decoder to one value per channel, the same at every position."""

    def __init__(self, latent_size: int, image_size: int, channels: int, out_channels: int) -> None:
        """Build from the widths of latent, hidden layer and output, and the image's side."""
        super().__init__()
        self.image_size = image_size
        self.layers = nn.Sequential(
            nn.Linear(latent_size, channels), nn.ELU(), nn.Linear(channels, out_channels)
        )

    def forward(self, z: Tensor) -> Tensor:
        """Map (N, latent_size) to a view (N, out_channels, H, W), unbounded."""
        values: Tensor = self.layers(z)
        return values[:, :, None, None].expand(-1, -1, self.image_size, self.image_size)


def conv_norm(in_channels: int, out_channels: int, groups: int) -> nn.Sequential:
    """Build a block of the U-Net: 3x3 convolution without bias, group norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.GroupNorm(groups, out_channels),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """U-Net with nearest-neighbour resampling and an MLP over the whole map at its bottleneck.

    log2(image_size) - 1 blocks reduce the map to 4x4 px, and as many restore its resolution. The
    last three of the former have twice the channels of the first.

    Source: Burgess et al. 2019 (MONet), as in the authors' code of GENESIS.
    """

    def __init__(
        self, in_channels: int, image_size: int, channels: int, *, groups: int | None = None
    ) -> None:
        """Build the blocks.

        Args:
            in_channels: channels of the input.
            image_size: side of the image in pixels.
            channels: channels of the first block and of the output.
            groups: groups of each group norm; None: one per channel (instance norm).
        """
        super().__init__()
        depth = image_size.bit_length() - 2
        widths = [channels] * (depth - 3) + [2 * channels] * 3
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for before, width in zip([in_channels, *widths], widths, strict=False):
            self.down.append(conv_norm(before, width, groups or width))
        before = widths[-1]
        for skip, width in zip(reversed(widths), [*reversed(widths[:-1]), channels], strict=True):
            self.up.append(conv_norm(before + skip, width, groups or width))
            before = width
        self.bottom_shape = (4, 4, widths[-1])  # row, column, channel
        size = math.prod(self.bottom_shape)
        self.mlp = nn.Sequential(
            nn.Linear(size, 128),
            nn.ReLU(),
            nn.Linear(128, 128),
            nn.ReLU(),
            nn.Linear(128, size),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, channels, H, W), >= 0."""
        skips: list[Tensor] = []
        for block in self.down:
            x = block(skips[-1][:, :, ::2, ::2] if skips else x)
            skips.append(x)
        x = self.mlp(flatten_map(x)).unflatten(1, self.bottom_shape).permute(0, 3, 1, 2)
        for i, block in enumerate(self.up):
            if i:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(torch.cat([x, skips.pop()], 1))
        return x
