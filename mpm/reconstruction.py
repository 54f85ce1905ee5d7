"""What a reconstruction is worth: masked cells filled by the network and by plain means."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from mpm import mae
from mpm.windows import Windows


@dataclass(frozen=True)
class Filled:
    """Windows, what was hidden of them, and how it was filled: all (N, layers, H, W).

    Attributes
    ----------
    values : Tensor
        Standardised evidence.
    scored : Tensor
        bool, cells that were masked and are observed.
    hidden : Tensor (N, 1, H, W)
        bool, cells that were masked.
    fills : dict of Tensor
        "MAE", and "layer mean", "window mean", "bilinear" for comparison.
    """

    values: Tensor
    scored: Tensor
    hidden: Tensor
    fills: dict[str, Tensor]


@torch.no_grad()
def fill(model: mae.MaskedAutoencoder, windows: Windows, index: np.ndarray, *, seed: int) -> Filled:
    """Mask windows at random and fill them in four ways.

    Parameters
    ----------
    model : MaskedAutoencoder
    windows : Windows
    index : array (n,) of int
    seed : int
        Decides the masks.

    Returns
    -------
    Filled
    """
    values, observed = windows.gather(index)
    config = model.config
    mask = mae.draw_mask(len(index), config, torch.Generator().manual_seed(seed))
    hidden = mae.masked_cells(mask, config)
    fills = {
        "MAE": model(values, observed, mask),
        "layer mean": torch.zeros_like(values),
        "window mean": _window_mean(values, observed & ~hidden),
        "bilinear": _bilinear(values, observed & ~hidden, config.patch),
    }
    return Filled(values, observed & hidden, hidden, fills)


def errors(filled: Filled, layers: list[str]) -> pd.DataFrame:
    """Score the fills, a layer at a time, on masked and observed cells.

    Returns
    -------
    DataFrame
        Index layer; columns the root mean squared error of each fill (standard deviations), and of
        the MAE `PSNR` (dB, against the layer's range in these windows) and `SSIM`.
    """
    counts = filled.scored.sum(dim=(0, 2, 3))
    counts = torch.where(counts > 0, counts, torch.nan)  # a layer that is nowhere scored
    table = {}
    for name, made in filled.fills.items():
        squared = ((made - filled.values) ** 2 * filled.scored).sum(dim=(0, 2, 3)) / counts
        table[name] = squared.sqrt().numpy()
    low = filled.values.where(filled.scored, torch.inf).amin(dim=(0, 2, 3))
    high = filled.values.where(filled.scored, -torch.inf).amax(dim=(0, 2, 3))
    span = (high - low).clamp(min=0).numpy()
    with np.errstate(divide="ignore"):
        table["PSNR"] = 20 * np.log10(np.where(span > 0, span, np.nan) / table["MAE"])
    table["SSIM"] = _ssim(filled, torch.as_tensor(span)).numpy()
    return pd.DataFrame(table, index=pd.Index(layers, name="layer"))


def _window_mean(values: Tensor, seen: Tensor) -> Tensor:
    """Each window's mean of visible cells, layer by layer; 0 where nothing is visible."""
    count = seen.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    return ((values * seen).sum(dim=(2, 3), keepdim=True) / count).expand_as(values)


def _bilinear(values: Tensor, seen: Tensor, patch: int) -> Tensor:
    """Interpolate between means of visible patches; gaps take the mean around them."""
    share = avg_pool2d(seen.float(), patch)
    mean = avg_pool2d(values * seen, patch)
    side = mean.shape[-1]
    # fill hidden patches from ever wider neighbourhoods until every patch has a value
    result, done = torch.zeros_like(mean), torch.zeros_like(mean, dtype=torch.bool)
    for reach in range(side):
        wide, near = (avg_pool2d(each, 2 * reach + 1, 1, reach) for each in (mean, share))
        takes = ~done & (near > 0)
        result = torch.where(takes, wide / near.clamp(min=1e-9), result)
        done |= takes
    return interpolate(result, scale_factor=patch, mode="bilinear", align_corners=False)


def _ssim(filled: Filled, span: Tensor, *, size: int = 7) -> Tensor:
    """Structural similarity of the filled windows, averaged over scored cells: (layers,).

    The visible and the missing cells are pasted in, so that structure runs across the mask's edge;
    they are not scored themselves.

    Source: Wang et al. 2004, doi:10.1109/TIP.2003.819861, equation 13, uniform 7 x 7 window.
    """
    truth = filled.values
    made = torch.where(filled.scored, filled.fills["MAE"], truth)

    def local(image: Tensor) -> Tensor:
        return avg_pool2d(image, size, 1, size // 2, count_include_pad=False)

    c1, c2 = ((factor * span.clamp(min=1e-6)) ** 2 for factor in (0.01, 0.03))
    c1, c2 = c1[:, None, None], c2[:, None, None]
    mean_a, mean_b = local(truth), local(made)
    var_a, var_b = local(truth**2) - mean_a**2, local(made**2) - mean_b**2
    shared = local(truth * made) - mean_a * mean_b
    index = (2 * mean_a * mean_b + c1) * (2 * shared + c2)
    index = index / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    counts = filled.scored.sum(dim=(0, 2, 3))
    return (index * filled.scored).sum(dim=(0, 2, 3)) / torch.where(counts > 0, counts, torch.nan)


def panels(filled: Filled, layers: list[str], kinds, *, rows: int) -> dict[str, dict]:
    """Choose windows worth looking at: of each layer, the one whose masked cells vary most.

    Parameters
    ----------
    filled : Filled
    layers : list of str
    kinds : sequence of str
        "continuous" or "binary", a layer each; binary ones are shown only if all are.
    rows : int
        How many layers, spread evenly over the list.

    Returns
    -------
    dict
        Layer to {"input", "masked", "reconstructed", "error"} of arrays (H, W).
    """
    order = [k for k, kind in enumerate(kinds) if kind == "continuous"] or [0]
    chosen = np.linspace(0, len(order) - 1, min(rows, len(order))).round().astype(int)
    shown = {}
    for k in (order[position] for position in chosen):
        complete = filled.scored[:, k].sum(dim=(1, 2)) == filled.hidden[:, 0].sum(dim=(1, 2))
        masked = filled.values[:, k].where(filled.hidden[:, 0], torch.nan).flatten(1)
        n = int((np.nanstd(masked.numpy(), axis=1) * complete.numpy()).argmax())
        truth = filled.values[n, k].numpy()
        hidden = filled.hidden[n, 0].numpy()
        made = np.where(hidden, filled.fills["MAE"][n, k].numpy(), truth)
        shown[layers[k].replace("_", " ")] = {
            "input": truth,
            "masked": np.where(hidden, np.nan, truth),
            "reconstructed": made,
            "error": made - truth,
        }
    return shown
