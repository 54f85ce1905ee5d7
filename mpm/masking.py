"""The pretext task: what of a window is hidden, and what the network has to tell of it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

TASKS = ("patches", "layers", "both", "apart")
WANTED = ("values", "normalised", "high_pass")


class Mask(NamedTuple):
    """What is hidden of N windows.

    Attributes
    ----------
    visible : Tensor (N, kept)
        int, numbers of the patches that the encoder gets.
    veiled : Tensor (N, kept, layers)
        bool, layers that are hidden in them; no columns where whole patches are hidden only.
    """

    visible: Tensor
    veiled: Tensor

    def part(self, index: Tensor) -> "Mask":
        """Return the masks of some windows, by their numbers (n,)."""
        return Mask(*(item[index] for item in self))

    def to(self, device: torch.device) -> "Mask":
        """Put the mask on a device."""
        return Mask(*(item.to(device) for item in self))

    def hidden(self, tokens: int, layers: int) -> Tensor:
        """Return which layers of which patches are hidden: (N, tokens, layers) bool."""
        n, kept = self.visible.shape
        shown = self.veiled if self.veiled.shape[2] else self.veiled.new_zeros(n, kept, layers)
        every = torch.ones(n, tokens, layers, dtype=torch.bool, device=shown.device)
        return every.scatter(1, self.visible.unsqueeze(-1).expand(-1, -1, layers), shown)

    def hidden_patches(self, tokens: int) -> Tensor:
        """Return the numbers of the patches that are hidden as a whole: (N, tokens - kept) int.

        Ascending, as `nonzero` would list them. As many are hidden of every window, so a GPU need
        not be waited for to count them.
        """
        hidden = self.hidden(tokens, 1)[..., 0]
        first = hidden.byte().argsort(dim=1, descending=True, stable=True)
        return first[:, : tokens - self.visible.shape[1]]


def draw(
    n: int,
    tokens: int,
    generator: torch.Generator | int,
    *,
    task: str = "patches",
    ratio: float = 0.75,
    layer_ratio: float = 0.5,
    units: Sequence[int] = (),
) -> Mask:
    """Draw what is hidden of windows.

    Parameters
    ----------
    n : int
        Windows.
    tokens : int
        Patches of a window.
    generator : torch.Generator or int
        On the CPU; or the seed of a fresh one.
    task : {"patches", "layers", "both", "apart"}
        "patches": a share of the patches, in all layers (He et al. 2022; the paper). "layers": a
        share of the layers, in all patches. "both": the two together. "apart": a share of the
        patches, drawn for each layer by itself.
    ratio : float
        Share of patches to hide.
    layer_ratio : float
        Share of layers to hide; at least one is hidden and one is not.
    units : sequence of int
        Number of each plane's unit, from 0: planes of a unit, such as the classes of one map or the
        layers of one group, are hidden together.

    Returns
    -------
    Mask
    """
    if isinstance(generator, int):
        generator = torch.Generator().manual_seed(generator)
    if task == "patches":
        visible = random_masking(n, tokens, ratio, generator)
        return Mask(visible, torch.zeros(*visible.shape, 0, dtype=torch.bool))
    planes = torch.as_tensor(units)
    count = int(planes.max()) + 1
    if task == "apart":
        noise = torch.rand(n, count, tokens, generator=generator)
        hidden = noise.argsort(dim=2).argsort(dim=2) >= _kept(tokens, ratio)
        return Mask(torch.arange(tokens).expand(n, -1), hidden[:, planes].transpose(1, 2))
    all_of_them = torch.arange(tokens).expand(n, -1)
    visible = random_masking(n, tokens, ratio, generator) if task == "both" else all_of_them
    noise = torch.rand(n, count, generator=generator)
    most = max(1, count - 1)
    hidden = noise.argsort(dim=1).argsort(dim=1) < min(most, max(1, round(count * layer_ratio)))
    return Mask(visible, hidden[:, None, planes].expand(-1, visible.shape[1], -1))


def random_masking(n: int, tokens: int, ratio: float, generator: torch.Generator) -> Tensor:
    """Draw which patches stay visible, in random order: (n, kept) indices.

    Parameters
    ----------
    n : int
        Windows.
    tokens : int
        Patches of a window.
    ratio : float
        Share of them that is hidden.
    generator : torch.Generator

    Source: He et al. 2022, arXiv:2111.06377, section 3, "masking".
    """
    noise = torch.rand(n, tokens, generator=generator)
    return noise.argsort(dim=1)[:, : _kept(tokens, ratio)]


def _kept(tokens: int, ratio: float) -> int:
    return max(1, round(tokens * (1 - ratio)))


def units(cube: xr.Dataset, by: str = "layer") -> tuple[int, ...]:
    """Number the planes of a cube so that those which belong together have one number.

    Parameters
    ----------
    cube : Dataset
    by : {"layer", "group"}
        "layer": the planes of one evidence layer, such as the classes of a map ("rock=granite").
        "group": the layers of one group of the study file.
    """
    if by == "group":
        names = cube["group"].values.tolist()
    else:
        names = [str(name).partition("=")[0] for name in cube["layer"].values]
    return tuple(np.unique(names, return_inverse=True)[1].tolist())


def target(values: Tensor, observed: Tensor, wanted: str, patch: int) -> Tensor:
    """Return what a network is to tell of windows (N, layers, H, W), of the same shape.

    Parameters
    ----------
    values : Tensor (N, layers, H, W)
        Standardised evidence, 0 where missing.
    observed : Tensor (N, layers, H, W)
        bool.
    wanted : {"values", "normalised", "high_pass"}
        "values": as they are. "normalised": less the mean of the patch, by its standard deviation,
        layer by layer (He et al. 2022, section 4.1). "high_pass": less the mean of the ground
        around, a square of two patches to each side, by the layer's standard deviation of that in
        these windows. Neither pays for what interpolation gets for free.
    patch : int
        Cells along one side of a patch.
    """
    if wanted == "values":
        return values
    made = _normalised if wanted == "normalised" else _high_pass
    return made(values, observed.to(values.dtype), patch)


def _normalised(values: Tensor, counted: Tensor, patch: int) -> Tensor:
    assert values.shape[-1] % patch == 0

    def spread(x: Tensor) -> Tensor:
        mean = avg_pool2d(x, patch)
        return mean.repeat_interleave(patch, 2).repeat_interleave(patch, 3)

    share = spread(counted).clamp(min=1e-6)
    centred = (values - spread(values * counted) / share) * counted
    return centred / (spread(centred.square()) / share + 1e-2).sqrt()


def _high_pass(values: Tensor, counted: Tensor, patch: int) -> Tensor:
    reach = 2 * patch
    padded = [pad(x, (reach,) * 4) for x in (values * counted, counted)]
    sums, count = (avg_pool2d(x, 2 * reach + 1, stride=1) for x in padded)
    rough = (values - sums / count.clamp(min=1e-6)) * counted
    number = counted.sum(dim=(0, 2, 3)).clamp(min=1)
    scale = (rough.square().sum(dim=(0, 2, 3)) / number).sqrt().clamp(min=1e-3)
    return rough / scale[:, None, None]
