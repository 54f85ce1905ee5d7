"""What a backbone learned: components and clusters of its features, and what they explain."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import rioxarray  # noqa: F401  (adds the .rio accessor)
import xarray as xr
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.metrics import adjusted_mutual_info_score, r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mpm.explained_cells import on_grid
from mpm.mapping import prediction_maps
from mpm.windows import Windows

PENALTIES = np.logspace(-2, 5, 8)  # of the ridge, of which leaving one training cell out picks


def lattice(windows: Windows, most: int) -> tuple[np.ndarray, int]:
    """Choose centres on every n-th row and column, the least n that leaves about `most` of them.

    Returns
    -------
    index : array (m,) of int
        Numbers of centres.
    step : int
        n, in cells.
    """
    step = max(1, math.ceil((len(windows) / most) ** 0.5))
    return np.flatnonzero(on_grid(windows.row, windows.col, step)), step


def lattice_maps(
    cubes: dict[str, xr.Dataset],
    windows: Windows,
    index: np.ndarray,
    step: int,
    **values: np.ndarray,
) -> dict[str, xr.Dataset]:
    """Lay values of the centres of a lattice on grids whose cells are n times as wide.

    Parameters
    ----------
    cubes : dict of Dataset
        By region, in the order of the windows.
    windows : Windows
    index, step
        Of `lattice`.
    **values : array (m,)

    Returns
    -------
    dict of Dataset
        By region, each value (y, x) float32, NaN where there is none.
    """
    spread = {}
    for name, own in values.items():
        spread[name] = np.full(len(windows), np.nan, "float32")
        spread[name][index] = own
    few = {"y": slice(step // 2, None, step), "x": slice(step // 2, None, step)}
    maps = {}
    for region, whole in prediction_maps(cubes, windows, **spread).items():
        thin = whole.isel(few)
        maps[region] = thin.rio.write_transform(thin.rio.transform(recalc=True))
    return maps


def components(
    features: np.ndarray, train: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return principal components of features, which training windows alone decide.

    They follow each other by the variance that they take up, and the largest weight of each is
    positive, so that two runs give the same picture.

    Parameters
    ----------
    features : array (m, width)
        Of all windows that are shown.
    train : array (n,) of int
        Rows that the components are fitted on.
    count : int

    Returns
    -------
    scores : array (m, count)
    share : array (count,)
        Share of the training windows' variance.

    Raises
    ------
    ValueError
        If there are fewer training windows or features than components.
    """
    if count > min(len(train), features.shape[1]):
        raise ValueError(
            f"{count} components need as many training windows ({len(train)}) and features "
            f"({features.shape[1]}); ask for fewer"
        )
    pca = PCA(count, svd_solver="full").fit(features[train])
    signs = np.sign(pca.components_[np.arange(count), np.abs(pca.components_).argmax(axis=1)])
    return pca.transform(features) * signs, pca.explained_variance_ratio_


def clusters(scores: np.ndarray, train: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    """Sort windows into groups of alike ones by k-means, which training windows alone decide.

    Parameters
    ----------
    scores : array (m, components)
    train : array (n,) of int
        Rows that the centres of the groups are fitted on.
    count : int
    seed : int

    Returns
    -------
    array (m,) of int
        From 0, in the order of the first component.
    """
    means = KMeans(count, n_init=10, random_state=seed).fit(scores[train])
    rank = means.cluster_centers_[:, 0].argsort().argsort()
    return rank[means.predict(scores)]


def correlations(scores: np.ndarray, values: np.ndarray, layers: Sequence[str]) -> pd.DataFrame:
    """Correlate components with layers where these are observed (Pearson).

    Parameters
    ----------
    scores : array (m, components)
    values : array (m, layers)
        NaN where missing.
    layers : sequence of str

    Returns
    -------
    DataFrame
        Index layer, columns 1, 2 ...; NaN where a layer does not vary.
    """
    names = range(1, scores.shape[1] + 1)
    own, theirs = pd.DataFrame(scores, columns=names), pd.DataFrame(values, columns=layers)
    both = {name: theirs.corrwith(own[name]) for name in names}
    return pd.DataFrame(both).rename_axis("layer")


def class_layers(cube: xr.Dataset) -> list[str]:
    """List the evidence layers of classes: those that planes like "lithology=shale" come from."""
    pairs = zip(cube["origin"].values, cube["layer"].values, strict=True)
    return list(dict.fromkeys(str(origin) for origin, plane in pairs if "=" in plane))


def class_codes(
    cubes: Mapping[str, xr.Dataset], windows: Windows, index: np.ndarray, layer: str
) -> tuple[np.ndarray, list[str]]:
    """Read the class of centres in a layer of `class_layers`.

    Parameters
    ----------
    cubes : mapping of Dataset
        By region, in the order of the windows.
    windows : Windows
    index : array (m,) of int
        Centres.
    layer : str

    Returns
    -------
    codes : array (m,) of int
        Place of the class among the names, -1 where there is none.
    names : list of str
    """
    first = next(iter(cubes.values()))
    planes = first["layer"].values[first["origin"].values == layer]
    codes = np.full(len(index), -1)
    for k, plane in enumerate(planes):  # one at a time: a lazy cube may be larger than memory
        grids = [cube["evidence"].sel(layer=plane).values for cube in cubes.values()]
        codes[windows.take(grids)[index] > 0.5] = k
    return codes, [plane.split("=", 1)[1] for plane in planes]


def agreement(groups: np.ndarray, codes: np.ndarray) -> float:
    """Return how much clusters tell about classes of windows (n,): the adjusted mutual information.

    0 is what chance gives, 1 means that clusters are the classes under other names. Windows
    without a class (-1) do not count; NaN if none has one.

    Source: Vinh et al. 2010, Journal of Machine Learning Research 11, 2837-2854.
    """
    known = codes >= 0
    return float(adjusted_mutual_info_score(codes[known], groups[known])) if known.any() else np.nan


def class_counts(groups: np.ndarray, codes: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    """Count cells by cluster (down, from 1) and class (across).

    Cells without a class do not count, and a cluster without any other has no row.
    """
    known = codes >= 0
    counts = pd.crosstab(groups[known] + 1, codes[known])
    counts = counts.reindex(columns=range(len(names)), fill_value=0).rename_axis("cluster")
    return counts.set_axis(pd.Index(names, name="class"), axis=1)


def explained(
    features: np.ndarray, values: np.ndarray, train: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Return the share of each layer's variance that features explain linearly (R²).

    A ridge regression is fitted on training cells, its penalty by leaving one of them out.

    Parameters
    ----------
    features : array (m, width)
    values : array (m, layers)
        NaN where missing.
    train, test : array (n,) of int
        Rows to fit on and to score.

    Returns
    -------
    array (layers,)
        On the test rows; below 0 where their mean would have been better, NaN where the layer does
        not vary or is missing.
    """
    found = np.full(values.shape[1], np.nan)
    observed = np.isfinite(values)
    kinds, kind = np.unique(observed, axis=1, return_inverse=True)
    for k, rows in enumerate(kinds.T):  # layers with the same gaps together
        fit, score = train[rows[train]], test[rows[test]]
        layers = np.flatnonzero(kind == k)
        if len(fit) < 2 or len(score) < 2:
            continue
        model = make_pipeline(StandardScaler(), RidgeCV(PENALTIES, alpha_per_target=True))
        made = model.fit(features[fit], values[np.ix_(fit, layers)]).predict(features[score])
        wanted = values[np.ix_(score, layers)]
        share = r2_score(wanted, made.reshape(wanted.shape), multioutput="raw_values")
        found[layers] = np.where(np.ptp(wanted, axis=0) > 0, share, np.nan)
    return found
