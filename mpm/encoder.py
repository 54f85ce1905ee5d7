"""The encoder: a Vision Transformer on patches of evidence layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from mpm import masking
from mpm.masking import Mask


@dataclass(frozen=True)
class MAEConfig:
    """Size of the network and of what it sees; the defaults are the paper's.

    Source: Daruna et al. 2024, arXiv:2406.12756.
    """

    layers: int = 14  # evidence layers
    window: int = 33  # cells along one side, odd so that it has a centre
    patch: int = 3  # cells along one side of a patch; must divide the window
    width: int = 256  # embedding size of the encoder
    depth: int = 6
    heads: int = 8
    decoder_width: int = 128
    decoder_depth: int = 2
    decoder_heads: int = 4
    mask_ratio: float = 0.75  # share of patches to hide
    task: str = "patches"  # what is hidden, see `masking.draw`
    layer_ratio: float = 0.5  # share of layers to hide, where the task hides layers
    units: tuple[int, ...] = ()  # planes that are hidden together, of `masking.units`
    wanted: str = "values"  # what is told of it, see `masking.target`
    loss_on: str = "hidden"  # cells in the loss: "hidden", or "all" as in the released code
    inputs: str = "values"  # "values", "contrasts" (less the window's visible mean), or "both"
    ignored: tuple[int, ...] = ()  # layers taken for missing everywhere, see `mpm.transfer`

    def __post_init__(self) -> None:
        for name in ("units", "ignored"):  # lists where read from JSON
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.window % 2 == 0 or self.window % self.patch:
            raise ValueError(
                f"window {self.window} must be odd and a multiple of patch {self.patch}"
            )
        if not 0 < self.mask_ratio < 1:
            raise ValueError(f"mask_ratio {self.mask_ratio} must lie between 0 and 1")
        known = {
            "task": masking.TASKS,
            "wanted": masking.WANTED,
            "loss_on": ("hidden", "all"),
            "inputs": ("values", "contrasts", "both"),
        }
        for name, values in known.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} {getattr(self, name)!r} is none of {', '.join(values)}")
        if self.task != "patches" and len(self.units) != self.layers:
            raise ValueError(
                f"task {self.task!r} needs a unit for each of the {self.layers} layers, as of "
                f"`masking.units`; there are {len(self.units)}"
            )

    @property
    def tokens(self) -> int:
        """Patches in a window."""
        return (self.window // self.patch) ** 2


def patchify(windows: Tensor, size: int) -> Tensor:
    """Cut square windows into flat tokens: (N, C, H, W) -> (N, L, C*size*size).

    Raises
    ------
    ValueError
        If the side of a window is no multiple of a patch's.

    Source: He et al. 2022, arXiv:2111.06377, section 3; here for any number of layers.
    """
    n, c, h, w = windows.shape
    if h % size or w % size:
        raise ValueError(f"window {h}x{w} is not a multiple of patch size {size}")
    tiles = windows.unfold(2, size, size).unfold(3, size, size)  # (N, C, rows, cols, size, size)
    return tiles.permute(0, 2, 3, 1, 4, 5).reshape(n, -1, c * size * size)


def unpatchify(tokens: Tensor, size: int) -> Tensor:
    """Undo `patchify`: (N, L, C*size*size) -> (N, C, H, W)."""
    n, length, flat = tokens.shape
    side = round(length**0.5)
    tiles = tokens.reshape(n, side, side, flat // size**2, size, size)
    return tiles.permute(0, 3, 1, 4, 2, 5).reshape(n, -1, side * size, side * size)


def sine_positions(tokens: int, width: int) -> Tensor:
    """Return sines and cosines of each patch's row and column: (1, tokens, width).

    The learned positions start from these: from small noise a short training never learns where
    patches lie, and fills windows with their mean.

    Raises
    ------
    ValueError
        If the width is no multiple of 4.

    Source: He et al. 2022, arXiv:2111.06377, appendix A.1 (there they stay fixed).
    """
    if width % 4:
        raise ValueError(
            f"width {width} must be a multiple of 4, for the sines and cosines of row and column"
        )
    side = round(tokens**0.5)
    rate = 1 / 10000 ** (torch.arange(width // 4) / (width / 4))
    row, col = torch.arange(side).repeat_interleave(side), torch.arange(side).repeat(side)
    angles = [place[:, None] * rate for place in (row, col)]
    return torch.cat([part for a in angles for part in (a.sin(), a.cos())], dim=1)[None]


class Encoder(nn.Module):
    """Vision Transformer on the visible patches of a window, with a CLS token.

    A missing cell enters as the layer's training mean, and the share of each layer that is missing
    in a patch is embedded beside the values, so that the network can tell "average" from "unknown".
    """

    def __init__(self, config: MAEConfig):
        super().__init__()
        self.config = config
        channels = config.layers * (2 if config.inputs == "both" else 1)
        self.values = nn.Linear(channels * config.patch**2, config.width)
        self.missing = nn.Linear(config.layers, config.width, bias=False)
        self.position = nn.Parameter(sine_positions(config.tokens, config.width))
        self.cls = nn.Parameter(torch.zeros(1, 1, config.width))
        self.blocks = blocks(config.width, config.depth, config.heads)
        self.norm = nn.LayerNorm(config.width)
        nn.init.trunc_normal_(self.cls, std=0.02)
        nn.init.zeros_(self.missing.weight)

    def forward(
        self,
        values: Tensor,
        observed: Tensor,
        mask: Mask | None = None,
        only: Sequence[int] | None = None,
    ) -> Tensor:
        """Encode windows.

        Parameters
        ----------
        values : Tensor (N, C, H, W)
            Standardised evidence, 0 where missing.
        observed : Tensor (N, C, H, W)
            bool, or the share that is observed, 0 to 1, between two windows of unlike gaps.
        mask : Mask, optional
            What is hidden; nothing by default.
        only : sequence of int, optional
            Tokens that are read: the last block works out no others.

        Returns
        -------
        Tensor (N, 1 + kept, width)
            CLS first; or (N, len(only), width).
        """
        size = self.config.patch
        return self.encode(patchify(values, size), patchify(observed, size), mask, only)

    def encode(
        self,
        patches: Tensor,
        seen: Tensor,
        mask: Mask | None = None,
        only: Sequence[int] | None = None,
    ) -> Tensor:
        """Encode windows that are cut into patches already, as `forward` does.

        Parameters
        ----------
        patches, seen : Tensor (N, L, C*patch*patch)
            Values, and where they are observed, as of `patchify`.
        mask, only
            As for `forward`.
        """
        position = self.position.expand(len(patches), -1, -1)
        patches, seen = self.shown(patches, seen, mask)
        if mask is not None:
            position = pick(position, mask.visible)
        gaps = 1 - seen.to(patches.dtype).mean(dim=3)  # (N, kept, C), share of missing cells
        tokens = self.values(self._inputs(patches, seen)) + position + self.missing(gaps)
        tokens = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], dim=1)
        *others, last = self.blocks or [nn.Identity()]
        for block in others:
            tokens = block(tokens)
        return self.norm(last(tokens) if only is None else _of_some(last, tokens, only))

    def shown(self, patches: Tensor, seen: Tensor, mask: Mask | None) -> tuple[Tensor, Tensor]:
        """Return what a mask leaves of patches: values, and (N, kept, C, patch*patch) observed."""
        patches, seen = self.attended(patches, seen)
        if mask is not None:  # hidden patches cost nothing
            patches, seen = pick(patches, mask.visible), pick(seen, mask.visible)
        seen = seen.unflatten(2, (self.config.layers, -1))
        if mask is not None and mask.veiled.shape[2]:  # a hidden layer is a missing one
            seen = seen & ~mask.veiled.unsqueeze(3)
            patches = patches.where(seen.flatten(2), 0.0)
        return patches, seen

    def attended(self, patches: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Return patches and what is seen of them (N, L, values), ignored layers as if missing."""
        if not self.config.ignored:
            return patches, seen
        seen = seen.unflatten(2, (self.config.layers, -1)).clone()
        seen[:, :, list(self.config.ignored)] = False
        seen = seen.flatten(2)
        return patches.where(seen > 0, 0.0), seen

    def _inputs(self, patches: Tensor, seen: Tensor) -> Tensor:
        if self.config.inputs == "values":
            return patches
        level = visible_mean(patches, seen)[:, None, :, None]
        contrasts = patches.unflatten(2, (self.config.layers, -1)) - level
        contrasts = contrasts.where(seen, 0.0) if seen.dtype == torch.bool else contrasts * seen
        if self.config.inputs == "contrasts":
            return contrasts.flatten(2)
        return torch.cat([patches, contrasts.flatten(2)], dim=2)


def visible_mean(patches: Tensor, seen: Tensor) -> Tensor:
    """Return the mean of each layer over a window's visible, observed cells: (N, C).

    Parameters
    ----------
    patches : Tensor (N, kept, C*patch*patch)
        0 where missing or hidden.
    seen : Tensor (N, kept, C, patch*patch)
        bool.
    """
    total = patches.unflatten(2, seen.shape[2:]).sum(dim=(1, 3))
    return total / seen.sum(dim=(1, 3)).clamp(min=1)


def _of_some(block: Any, tokens: Tensor, only: Sequence[int]) -> Tensor:
    """Return what a block makes of some tokens (N, L, width), which see all: (N, some, width)."""
    attention, kept, seen = block.attn, tokens[:, only], block.norm1(tokens)
    ask, *told = attention.qkv.weight.chunk(3)
    queries, keys, values = (
        linear(given, weight).unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
        for given, weight in ((seen[:, only], ask), *((seen, weight) for weight in told))
    )
    read = scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)
    kept = kept + attention.proj(read)
    return kept + block.mlp(block.norm2(kept))


def blocks(width: int, depth: int, heads: int) -> nn.ModuleList:
    """Return transformer blocks of timm."""
    return nn.ModuleList(
        Block(dim=width, num_heads=heads, mlp_ratio=4.0, qkv_bias=False, norm_layer=nn.LayerNorm)
        for _ in range(depth)
    )


def resnet18(channels: int, width: int) -> nn.Module:
    """Return timm's ResNet-18 without its head, for small windows: (N, C, H, W) -> (N, F, h, w).

    The published stem, a convolution of 7 x 7 cells with stride 2 and pooling with stride 2, would
    leave a quarter of a window's rows before the first block; here it is 3 x 3 with stride 1.

    Parameters
    ----------
    channels : int
        C.
    width : int
        Features of the first of four stages, 64 as published; F is eight times as many.

    Source: He et al. 2016, arXiv:1512.03385; the stem is that of its section 4.2.
    """
    stages = tuple(width * 2**k for k in range(4))
    # the "deep" stem is the one whose width may be chosen; it is replaced below
    stem: dict[str, Any] = {"in_chans": channels, "stem_type": "deep", "stem_width": width // 2}
    net = ResNet(BasicBlock, (2, 2, 2, 2), channels=stages, num_classes=0, global_pool="", **stem)
    net.conv1 = nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.maxpool = nn.Identity()
    return net


def pick(tokens: Tensor, index: Tensor) -> Tensor:
    """Return some tokens of each window: (N, L, width), (N, kept) -> (N, kept, width)."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
