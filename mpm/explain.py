"""Why this cell? Contributions of evidence layers to a prediction, by Integrated Gradients.

A window is its values and its gaps, and so is the ground that it is compared with: the path from
one to the other changes both, so that a gap counts as what it is and not as an average value.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import pyproj
import torch
import xarray as xr
from captum.attr import IntegratedGradients
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from mpm.classifier import Classifier
from mpm.memory import enough_memory, give_memory_back
from mpm.splits import cell_km
from mpm.windows import Windows

TOLERANCE = 0.01  # how far contributions may miss the score, as a share of it
SMALLEST = 1e-3  # a change of the logit that counts as none
AT_ONCE = 48  # windows of which the gradient is taken at a time: memory does not grow with steps
# windows (k, layers, size, size) to compare with; with where they are observed, as of
# `Windows.gather`, their gaps are compared, too
Starts = Tensor | tuple[Tensor, Tensor]


def integrated_gradients(
    classifier: Classifier,
    windows: Windows,
    index: np.ndarray,
    *,
    baselines: Starts | None = None,
    steps: int = 6,
    most_steps: int = 1024,
    batch: int = 16,
    device: torch.device | str = "cpu",
    label: str = "explaining",
) -> tuple[np.ndarray, np.ndarray]:
    """Attribute the logit of windows to their cells and layers.

    The logit is explained, not the probability, whose gradient vanishes near 0 and 1. Paths whose
    contributions miss the change of the logit by 1 % or more are walked again with twice as many
    points, until they do not or `most_steps` are reached; all others cost no more for them.

    Parameters
    ----------
    classifier : Classifier
    windows : Windows
    index : array (n,) of int
        Centres to explain.
    baselines : Tensor (k, layers, size, size), or two of them, optional
        What a window is compared with; contributions are the mean over them. Values alone are
        given the gaps of the window, so that a missing cell explains nothing. Values and where
        they are observed, of `Windows.gather`, have their own: where window and baseline are not
        both observed, the contribution holds what the gap itself changes. By default one window of
        the training mean of every layer, 0, in which no class of any one-hot layer is present.
    steps, most_steps : int
        Points along a path from a baseline to the window, at first and at most.
    batch : int
        Windows at a time.
    device : device
    label : str
        Name of the progress bar.

    Returns
    -------
    attribution : array (n, layers, size, size)
        float32; sums over a window to the logit less the mean logit of the baselines.
    gap : array (n,)
        Distance of the sums from the differences of the logits, averaged over the paths without
        regard to its sign, as a share of the mean difference: 0 if exact.

    Raises
    ------
    MemoryError
        If a batch does not fit.

    Source: Sundararajan et al. 2017, arXiv:1703.01365, equation 1 and proposition 1.
    """
    # filled, not collected in lists: small tensors between large ones scatter memory
    found = torch.empty(len(index), windows.layers, windows.size, windows.size)
    gap = torch.empty(len(index))
    walked = _walk(classifier, windows, index, baselines, (steps, most_steps), batch, device, label)
    for here, part, missed in walked:
        found[here], gap[here] = part, missed
    return found.numpy(), gap.numpy()


def layer_contributions(
    classifier: Classifier,
    windows: Windows,
    index: np.ndarray,
    *,
    baselines: Starts | None = None,
    steps: int = 6,
    most_steps: int = 1024,
    batch: int = 16,
    device: torch.device | str = "cpu",
    label: str = "explaining",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Attribute the logit of windows to layers, in memory that does not grow with a window's size.

    Parameters
    ----------
    classifier, windows, index, baselines, steps, most_steps, batch, device, label
        As for `integrated_gradients`.

    Returns
    -------
    signed, absolute : array (n, layers)
        Of `by_layer`, float32.
    gap : array (n,)

    Raises
    ------
    MemoryError
        If a batch does not fit.
    """
    signed, absolute = torch.empty(2, len(index), windows.layers)
    gap = torch.empty(len(index))
    walked = _walk(classifier, windows, index, baselines, (steps, most_steps), batch, device, label)
    for here, part, missed in walked:
        signed[here], absolute[here] = part.sum(dim=(2, 3)), part.abs().sum(dim=(2, 3))
        gap[here] = missed
    return signed.numpy(), absolute.numpy(), gap.numpy()


def evidence_contributions(
    classifier: Classifier,
    windows: Windows,
    index: np.ndarray,
    origin: Sequence[str],
    *,
    baselines: Starts | None = None,
    device: torch.device | str = "cpu",
) -> tuple[pd.DataFrame, np.ndarray]:
    """Attribute the logit of windows to evidence layers: signed, (n, evidence layers).

    Parameters
    ----------
    classifier, windows, index, baselines, device
        As for `integrated_gradients`.
    origin : sequence of str
        As for `by_evidence`.

    Returns
    -------
    DataFrame, array (n,)
        And the gap of every sum, as of `integrated_gradients`.
    """
    signed, _, gap = layer_contributions(
        classifier, windows, index, baselines=baselines, device=device
    )
    return by_evidence(signed, origin), gap


def _walk(
    classifier: Classifier,
    windows: Windows,
    index: np.ndarray,
    baselines: Starts | None,
    steps: tuple[int, int],
    batch: int,
    device: torch.device | str,
    label: str,
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield which windows, their attributions (n, layers, size, size) and gaps (n,), by batch."""
    give_memory_back()  # else a notebook grows with every explanation
    classifier, windows = classifier.to(device).eval(), windows.to(device)
    starts = _starts(baselines, windows)

    def explain(values: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        origins = [_origin(start, values, observed) for start in starts]
        with torch.no_grad():
            logit = classifier(values, observed)
            changes = torch.stack([logit - classifier(*start) for start in origins])
        whole = changes.mean(dim=0).abs().clamp(min=SMALLEST)
        found, missed = torch.zeros_like(values), torch.zeros_like(whole)
        for start, change in zip(origins, changes, strict=True):
            path = (classifier, (values, observed), start)
            part, error = _integrate(*path, change, TOLERANCE * whole, *steps)
            found += part / len(origins)
            missed += error / len(origins)
        return found.cpu(), (missed / whole).cpu()

    with enough_memory("Integrated Gradients", windows, batch):
        for k, (found, gap) in enumerate(windows.map(explain, index, batch, label=label)):
            yield slice(k * batch, k * batch + len(gap)), found, gap
    classifier.cpu()


def _starts(baselines: Starts | None, windows: Windows) -> list[tuple[Tensor, Tensor | None]]:
    """List baselines: values (layers, size, size), and where they are observed if that is known."""
    if baselines is None:
        baselines = torch.zeros(1, windows.layers, windows.size, windows.size)
    if isinstance(baselines, Tensor):
        return [(values, None) for values in baselines]
    return list(zip(*baselines, strict=True))


def _origin(
    start: tuple[Tensor, Tensor | None], values: Tensor, observed: Tensor
) -> tuple[Tensor, Tensor]:
    """Begin a path: values and observed (n, layers, size, size) of a baseline, for each window."""
    mean, seen = start[0].to(values.device), start[1]
    # without gaps of its own it is given those of the window: a missing cell explains nothing
    seen = observed if seen is None else seen.to(values.device).expand_as(observed)
    return mean.expand_as(values).where(seen, 0), seen


def _integrate(
    classifier: Classifier,
    window: tuple[Tensor, Tensor],
    start: tuple[Tensor, Tensor],
    change: Tensor,
    allowed: Tensor,
    steps: int,
    most: int,
) -> tuple[Tensor, Tensor]:
    """Attributions (n, layers, size, size) of one path a window, and what they miss (n,)."""
    method = IntegratedGradients(classifier)
    found, error = torch.empty_like(window[0]), torch.full_like(change, torch.inf)
    gaps_differ = not torch.equal(window[1], start[1])
    while steps <= most and (left := (error >= allowed).nonzero().squeeze(1)).numel():
        options = {"n_steps": steps, "internal_batch_size": max(AT_ONCE, len(left))}
        if gaps_differ:  # a share of a gap lies between none and all of it
            ends = [tuple(part[left].to(found.dtype) for part in end) for end in (window, start)]
            part = sum(method.attribute(*ends, **options)).detach()
        else:
            values, usual = (end[0][left] for end in (window, start))
            given = {"additional_forward_args": (window[1][left],)}
            part = method.attribute(values, usual, **given, **options).detach()
        found[left], error[left] = part, (part.flatten(1).sum(dim=1) - change[left]).abs()
        steps *= 2
    return found, error


def by_layer(attribution: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum attributions over a window: (n, layers, size, size) -> signed and absolute (n, layers).

    The signed sum keeps completeness; the absolute sum shows layers whose parts cancel.
    """
    return attribution.sum(axis=(2, 3)), np.abs(attribution).sum(axis=(2, 3))


def by_evidence(values: np.ndarray, origin: Sequence[str]) -> pd.DataFrame:
    """Sum the contributions of planes (n, planes) of one evidence layer, e.g. of all its classes.

    Parameters
    ----------
    values : array (n, planes)
    origin : sequence of str
        Evidence layer that each plane belongs to.

    Returns
    -------
    DataFrame (n, evidence layers)
        In the order of their first planes.
    """
    return pd.DataFrame(values.T).groupby(np.asarray(origin), sort=False).sum().T


def importance(values: pd.DataFrame) -> pd.Series:
    """Mean absolute contribution of each column of contributions (n, layers), largest first."""
    return values.abs().mean().sort_values(ascending=False, kind="stable")


def centre_values(
    cubes: Mapping[str, xr.Dataset], windows: Windows, index: np.ndarray
) -> pd.DataFrame:
    """Read evidence at centres in its own units.

    Parameters
    ----------
    cubes : mapping of Dataset
        By region, unscaled, in the order of the windows.
    windows : Windows
    index : array (n,) of int

    Returns
    -------
    DataFrame (n, planes)
        NaN where missing.
    """
    names = next(iter(cubes.values()))["layer"].values.tolist()
    columns = {}
    for name in names:  # one at a time: a lazy cube may be larger than memory
        planes = [cube["evidence"].sel(layer=name).values for cube in cubes.values()]
        columns[name] = windows.take(planes)[index]
    return pd.DataFrame(columns)


def distance_to_positives(
    windows: Windows, positive: np.ndarray, cubes: Mapping[str, xr.Dataset]
) -> np.ndarray:
    """Return every centre's distance to the nearest positive cell of its region (km), (n,)."""
    planes = []
    for number, cube in enumerate(cubes.values()):
        cells = windows.put(positive, number, False)
        away = distance_transform_edt(~cells) * cell_km(cube)
        planes.append(np.where(cells.any(), away, np.inf))
    return windows.take(planes)


def describe_cell(
    windows: Windows, centre: int, cubes: Mapping[str, xr.Dataset], likelihood: float
) -> str:
    """Say where a centre lies: region, longitude, latitude, likelihood.

    Parameters
    ----------
    windows : Windows
    centre : int
        Number of the centre.
    cubes : mapping of Dataset
        By region, in the order of the windows.
    likelihood : float
    """
    region, cube = list(cubes.items())[windows.region[centre]]
    x, y = float(cube["x"][windows.col[centre]]), float(cube["y"][windows.row[centre]])
    to_degrees = pyproj.Transformer.from_crs(cube.rio.crs, "EPSG:4326", always_xy=True)
    longitude, latitude = to_degrees.transform(x, y)
    east, north = "WE"[longitude >= 0], "SN"[latitude >= 0]
    where = f"{abs(longitude):.2f}° {east}, {abs(latitude):.2f}° {north}"
    return f"{region}, {where}: likelihood {likelihood:.2f}"
