"""What a reconstruction is worth: masked cells filled by the network and by plain means."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from mpm import mae, masking
from mpm.windows import Windows


@dataclass(frozen=True)
class Filled:
    """Windows, what was hidden of them, and how it was filled: all (N, layers, H, W).

    Attributes
    ----------
    values : Tensor
        Standardised evidence.
    observed : Tensor
        bool, cells that hold evidence.
    hidden : Tensor (N, 1, H, W)
        bool, cells that were masked.
    fills : dict of Tensor
        "MAE", and "layer mean", "window mean", "bilinear" for comparison.
    """

    values: Tensor
    observed: Tensor
    hidden: Tensor
    fills: dict[str, Tensor]

    @property
    def scored(self) -> Tensor:
        """Cells that were masked and are observed, bool (N, C, H, W)."""
        return self.observed & self.hidden


@torch.no_grad()
def fill(
    model: mae.MaskedAutoencoder,
    windows: Windows,
    index: np.ndarray,
    *,
    means: np.ndarray,
    seed: int,
) -> Filled:
    """Mask windows at random and fill them in four ways.

    Parameters
    ----------
    model : MaskedAutoencoder
    windows : Windows
    index : array (n,) of int
    means : array (layers,)
        Of the training cells, as `layer_means` gives them.
    seed : int
        Decides the masks.

    Returns
    -------
    Filled
    """
    values, observed = windows.gather(index)
    config = model.config
    # whole patches, whatever the network was trained on: the fills need something to go on
    mask = masking.draw(len(index), config.tokens, seed, ratio=config.mask_ratio)
    hidden = mae.masked_cells(mask, config)
    fills = {
        "MAE": model(values, observed, mask),
        "layer mean": torch.as_tensor(means)[:, None, None].expand_as(values).float(),
        "window mean": _window_mean(values, observed & ~hidden),
        "bilinear": _bilinear(values, observed & ~hidden, config.patch),
    }
    return Filled(values, observed, hidden, fills)


def layer_means(windows: Windows, train: np.ndarray, *, most: int = 100_000) -> np.ndarray:
    """Return the mean of each layer over training centres: (layers,).

    In standardised layers it is close to 0; in yes/no layers it is the share of yes. Of more than
    `most` centres, every second, third ... is taken. A layer that is missing in all has 0.
    """
    values = windows.centres(train[:: max(1, len(train) // most)])
    count = np.isfinite(values).sum(axis=0)
    return np.nansum(values, axis=0) / np.maximum(count, 1)


def errors(filled: Filled, layers: Sequence[str]) -> pd.DataFrame:
    """Score every fill, a layer at a time, on masked and observed cells alone.

    Parameters
    ----------
    filled : Filled
    layers : sequence of str

    Returns
    -------
    DataFrame
        Index layer; columns are pairs of measure and fill: `error`, the root mean squared error
        (standard deviations, in yes/no layers 1); `PSNR` (dB), the peak signal-to-noise ratio, its
        peak being `range`; `SSIM` (1), the structural similarity. The column `range` (as `error`)
        is the largest less the smallest scored value of the layer in these windows. A layer without
        a scored cell has NaN.
    """
    rows = [_score_layer(filled, k) for k in range(len(layers))]
    table = pd.DataFrame(rows, index=pd.Index(layers, name="layer"))
    table.columns = pd.MultiIndex.from_tuples(table.columns, names=["measure", "fill"])
    return table


def _score_layer(filled: Filled, k: int) -> dict[tuple[str, str], float]:
    """Return one row of `errors`: {(measure, fill): value}."""
    truth, scored = filled.values[:, k].double(), filled.scored[:, k]
    wanted = truth[scored]
    span = float(wanted.max() - wanted.min()) if len(wanted) else np.nan
    error, psnr, ssim = {}, {}, {}
    for name, fill in filled.fills.items():
        made = fill[:, k].double()
        error["error", name] = float((made[scored] - wanted).square().mean().sqrt())
        psnr["PSNR", name] = _decibels(span, error["error", name])
        ssim["SSIM", name] = structural_similarity(truth, made, scored, span)
    return error | psnr | ssim | {("range", ""): span}


def _decibels(peak: float, error: float) -> float:
    """Return the peak signal-to-noise ratio (dB); NaN where nothing varies."""
    if not peak > 0:
        return np.nan
    return 20 * np.log10(peak / error) if error else np.inf


def structural_similarity(
    truth: Tensor, made: Tensor, scored: Tensor, span: float, *, size: int = 7
) -> float:
    """Compare the structure of two sets of images in squares of cells.

    Means, variances and the covariance of a square are those of its scored cells, and the square
    counts by their number. So what was visible, which every fill has right, does not raise the
    score. Only squares that lie inside the image are taken. With all cells scored this is the
    mean structural similarity as it is usually computed.

    Parameters
    ----------
    truth, made : Tensor (N, H, W)
        float64.
    scored : Tensor (N, H, W)
        bool.
    span : float
        Range of the data, which the constants of the formula are shares of.
    size : int
        Cells along one side of a square, the image's at most.

    Returns
    -------
    float
        1 where both are equal; NaN if no cell is scored or the truth does not vary.

    Source: Wang et al. 2004, doi:10.1109/TIP.2003.819861, equation 13, with K1 = 0.01, K2 = 0.03
    and uniform weights; there with Gaussian ones.
    """
    if not (span > 0 and scored.any()):
        return np.nan
    size = min(size, *truth.shape[1:])
    share = avg_pool2d(scored.double(), size, 1)

    def local(image: Tensor) -> Tensor:
        return avg_pool2d(image.where(scored, 0.0), size, 1) / share.clamp(min=0.5 / size**2)

    mean_a, mean_b = local(truth), local(made)
    var_a, var_b = local(truth**2) - mean_a**2, local(made**2) - mean_b**2
    both = local(truth * made) - mean_a * mean_b
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    index = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    index = index / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return float((index * share).sum() / share.sum())


def verdicts(errors: pd.DataFrame, filled: Filled | None = None) -> pd.DataFrame:
    """Hold the network against the best plain fill of each layer.

    Which plain fill is best is told by the same cells, in the plain fills' favour.

    Parameters
    ----------
    errors : DataFrame
        Of `errors`.
    filled : Filled, optional
        What they were taken of, for intervals over windows; without it there are none.

    Returns
    -------
    DataFrame
        Index layer, from the network's greatest gain to its greatest loss; columns `MAE` and
        `plain` (error), `best plain fill`, `ratio` (MAE / plain, infinite where a plain fill is
        exact, as on a class that occurs in no window), `low` and `high` (95 % interval of the
        ratio, over windows drawn anew; NaN without `filled`), `worse` (bool, where the ratio is
        above 1) and `verdict` ("better", "worse", or "cannot be told" where the interval holds 1).
        Layers without a scored cell are left out.
    """
    error = errors["error"].dropna()
    plain = error.drop(columns="MAE")
    table = pd.DataFrame(
        {"MAE": error["MAE"], "plain": plain.min(axis=1), "best plain fill": plain.idxmin(axis=1)}
    )
    table["ratio"] = (table["MAE"] / table["plain"]).fillna(1)  # both are exact
    table[["low", "high"]] = np.nan
    if filled is not None:
        names = errors.index.tolist()
        best = {names.index(name): own for name, own in table["best plain fill"].items()}
        table[["low", "high"]] = _ratio_intervals(filled, best)
    low, high = (table[name].fillna(table["ratio"]) for name in ("low", "high"))
    table["verdict"] = np.where(high < 1, "better", np.where(low > 1, "worse", "cannot be told"))
    return table.assign(worse=table["ratio"] > 1).sort_values("ratio")


def _ratio_intervals(
    filled: Filled, best: dict[int, str], *, draws: int = 500, seed: int = 0
) -> np.ndarray:
    """Return the interval of the ratio of errors, each draw with other windows: (layers, 2).

    Neighbouring windows share ground, which this takes for independent: it is narrow rather than
    wide. Of a layer that a plain fill has right in some draws there is no upper end.
    """
    count = len(filled.values)
    chosen = np.random.default_rng(seed).integers(count, size=(draws, count))
    ends = []
    for k, name in best.items():
        off = [
            (filled.fills[fill][:, k] - filled.values[:, k]).where(filled.scored[:, k], 0.0)
            for fill in ("MAE", name)
        ]
        own, other = (part.double().square().sum(dim=(1, 2)).numpy()[chosen].sum(1) for part in off)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.sqrt(own / other)
        ends.append(np.nanpercentile(np.where(own == other, 1.0, ratio), [2.5, 97.5]))
    return np.array(ends)


def losses(filled: Filled) -> dict[str, float]:
    """Return each fill's mean squared error over all scored cells of all layers: the loss."""
    parts = {name: (made - filled.values)[filled.scored] for name, made in filled.fills.items()}
    return {name: float(off.square().mean()) for name, off in parts.items()}


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
