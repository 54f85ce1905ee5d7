"""Why this cell? Contributions of evidence layers to a prediction."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyproj
import torch
import xarray as xr
from captum.attr import IntegratedGradients
from scipy.ndimage import distance_transform_edt

from mpm.classifier import Classifier
from mpm.splits import cell_km
from mpm.windows import Windows


def integrated_gradients(
    classifier: Classifier,
    windows: Windows,
    index: np.ndarray,
    *,
    baseline: torch.Tensor | None = None,
    steps: int = 32,
    batch: int = 8,
    device: torch.device | str = "cpu",
    label: str = "explaining",
) -> tuple[np.ndarray, np.ndarray]:
    """Attribute the logit of windows to their cells and layers.

    The logit is explained, not the probability, whose gradient vanishes near 0 and 1.

    Parameters
    ----------
    classifier : Classifier
    windows : Windows
    index : array (n,) of int
        Centres to explain.
    baseline : Tensor (layers, size, size), optional
        What the window is compared with; by default the training mean of every layer, 0.
    steps : int
        Points along the path from the baseline to the window.
    batch : int
        Windows at a time; the gradient is taken of 8 x batch of them.
    device : device
    label : str
        Name of the progress bar.

    Returns
    -------
    attribution : array (n, layers, size, size)
        float32; sums over a window to the logit less that of the baseline.
    gap : array (n,)
        Distance of that sum from the difference of the logits, as a share of it: 0 if exact.

    Source: Sundararajan et al. 2017, arXiv:1703.01365, equation 1 and proposition 1.
    """
    classifier = classifier.to(device).eval()
    windows = windows.to(device)
    method = IntegratedGradients(classifier)
    # filled, not collected in lists: small tensors between large ones scatter memory
    found = torch.empty(len(index), windows.layers, windows.size, windows.size)
    gap = torch.empty(len(index))
    for k, (values, observed) in enumerate(windows.batches(index, batch, label=label)):
        origin = torch.zeros_like(values[:1]) if baseline is None else baseline.to(values)[None]
        origin = origin.expand_as(values).where(observed, 0.0)  # a missing cell explains nothing
        attribution = method.attribute(
            values,
            origin,
            additional_forward_args=(observed,),
            n_steps=steps,
            internal_batch_size=batch * 8,
        )
        with torch.no_grad():
            change = classifier(values, observed) - classifier(origin, observed)
        away = (attribution.flatten(1).sum(dim=1) - change).abs()
        here = slice(k * batch, (k + 1) * batch)
        found[here], gap[here] = attribution.detach(), away.detach() / change.abs().clamp(min=1e-3)
    classifier.cpu()
    return found.numpy(), gap.numpy()


@torch.no_grad()
def typical_windows(
    classifier: Classifier, windows: Windows, index: np.ndarray, *, count: int, seed: int
) -> torch.Tensor:
    """Choose real background windows to compare a prediction with.

    A window of layer means is no ground the network has seen, and may score high. These are the
    windows whose logit lies nearest to the background's median.

    Parameters
    ----------
    classifier : Classifier
    windows : Windows
    index : array (n,) of int
        Background centres, e.g. unlabeled training cells; at most 2000 are looked at.
    count : int
        How many to choose.
    seed : int
        Decides which are looked at.

    Returns
    -------
    Tensor (count, layers, size, size)
        float32, 0 where missing.
    """
    rng = np.random.default_rng(seed)
    some = np.sort(rng.choice(index, min(2000, len(index)), replace=False))
    logits = torch.cat([classifier.eval()(*part) for part in windows.batches(some, 256)])
    nearest = (logits - logits.median()).abs().argsort(stable=True)[:count]
    return windows.gather(some[nearest.numpy()])[0]


def by_layer(attribution: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum attributions over a window: (n, layers, size, size) -> signed and absolute (n, layers).

    The signed sum keeps completeness; the absolute sum shows layers whose parts cancel.
    """
    return attribution.sum(axis=(2, 3)), np.abs(attribution).sum(axis=(2, 3))


def tree_shap(model, features: np.ndarray) -> np.ndarray:
    """Return SHAP values of a fitted tree model for the positive class: (n, layers).

    They are parts of the log odds in gradient boosting, of the probability in a forest.

    Parameters
    ----------
    model : HistGradientBoostingClassifier or RandomForestClassifier
        Fitted.
    features : array (n, layers)
        NaN where missing.

    Raises
    ------
    ValueError
        If the values do not have one number a cell and layer.

    Source: Lundberg et al. 2020, doi:10.1038/s42256-019-0138-9 (TreeExplainer).
    """
    import shap  # slow to import, and needed here only

    values = np.asarray(shap.TreeExplainer(model).shap_values(features))
    if values.ndim == 3:  # (n, layers, classes)
        values = values[:, :, 1]
    if values.shape != features.shape:
        raise ValueError(f"SHAP values have shape {values.shape}, features {features.shape}")
    return values


def importance(values: np.ndarray, layers: Sequence[str], origin: Sequence[str]) -> pd.Series:
    """Mean absolute contribution of each evidence layer, its one-hot planes summed first.

    Parameters
    ----------
    values : array (n, planes)
    layers, origin : sequence of str
        Plane names, and the evidence layer each belongs to.

    Returns
    -------
    Series
        By evidence layer, largest first.
    """
    summed = pd.DataFrame(values, columns=list(layers)).T.groupby(list(origin), sort=False).sum().T
    return summed.abs().mean().sort_values(ascending=False)


def rank_agreement(one: pd.Series, other: pd.Series) -> float:
    """Return Spearman's rank correlation of two importances over the layers they share."""
    both = pd.concat([one, other], axis=1, join="inner")
    return float(both.rank().corr().iloc[0, 1])


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
    """Say where a centre lies: region, longitude, latitude, likelihood."""
    region, cube = list(cubes.items())[windows.region[centre]]
    x, y = float(cube["x"][windows.col[centre]]), float(cube["y"][windows.row[centre]])
    to_degrees = pyproj.Transformer.from_crs(cube.rio.crs, "EPSG:4326", always_xy=True)
    longitude, latitude = to_degrees.transform(x, y)
    east, north = "WE"[longitude >= 0], "SN"[latitude >= 0]
    where = f"{abs(longitude):.2f}° {east}, {abs(latitude):.2f}° {north}"
    return f"{region}, {where}: likelihood {likelihood:.2f}"
