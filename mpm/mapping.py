"""Prediction: a likelihood and an uncertainty for cells, and the maps made of them."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import xarray as xr
from torch import Tensor

from mpm import artefacts
from mpm.classifier import Classifier, Fitted
from mpm.fine_tuning import FineTuneSettings, fine_tune
from mpm.folds import Fold
from mpm.labels import sample_cells
from mpm.mae import Encoder
from mpm.map_files import read_facts, read_maps, write_prediction
from mpm.memory import enough_memory
from mpm.metrics import best_threshold
from mpm.pu_selection import choose_negatives
from mpm.study import Study
from mpm.windows import Windows

# where notebooks look for what is done with maps
__all__ = ["PREDICTION_COLUMNS", "predict", "predict_ensemble", "prediction_maps"]
__all__ += ["predictions_path", "read_facts", "read_maps", "read_predictions"]
__all__ += ["table", "tune_and_predict", "write_prediction"]
THRESHOLD_CELLS = 2000  # unlabeled validation cells that the threshold is chosen on
PREDICTION_COLUMNS = ["split", "fold", "method", "region", "row", "col", "positive", "deposit"]
PREDICTION_COLUMNS += ["likelihood", "uncertainty", "threshold"]
NAMES = ["split", "fold", "method"]  # texts that millions of rows share
SMALL = {"region": "uint8", "row": "int32", "col": "int32", "deposit": "int32"}


@torch.no_grad()
def predict(
    classifier: Classifier,
    windows: Windows,
    index: np.ndarray,
    *,
    samples: int = 100,
    seed: int = 0,
    batch: int = 0,
    device: torch.device | str = "cpu",
    label: str = "predicting",
) -> tuple[np.ndarray, np.ndarray]:
    """Predict cells with Monte Carlo dropout, the backbone running once a window.

    Dropout before a linear head is the same as dropping weights of the head, so all samples of all
    windows are one matrix product. The samples of one window are independent, as in full passes;
    windows share their dropout masks, which changes no mean and no spread.

    Parameters
    ----------
    classifier : Classifier
    windows : Windows
    index : array (n,) of int
        Centres to predict.
    samples : int
        Dropout samples; 0 gives the plain pass and no spread.
    seed : int
        Decides the dropout masks.
    batch : int
        Windows at a time; 0: on a CPU 256, which its caches like, else the most that fit.
    device : device
    label : str
        Name of the progress bar.

    Returns
    -------
    likelihood, uncertainty : array (n,)
        Mean and standard deviation of the sampled probability, float32.

    Raises
    ------
    MemoryError
        If a batch does not fit.

    Source: Gal and Ghahramani 2016, arXiv:1506.02142, equation 6.
    """
    classifier = classifier.to(device).eval()
    windows = windows.to(device)
    weights = _head_samples(classifier, samples, seed)
    # not a list of parts: small tensors between large ones scatter memory, which grows with the map
    drawn = torch.empty(2, len(index), device=device)
    sizes = [batch] if batch else _sizes(torch.device(device))
    for size in sizes:
        try:
            _predict(classifier, windows, index, weights, drawn, size, label)
            break
        except MemoryError:  # half of it may fit
            if size == sizes[-1]:
                raise
    classifier.cpu()
    likelihood, uncertainty = drawn.cpu().numpy()
    return likelihood, uncertainty


def _sizes(device: torch.device) -> list[int]:
    """Return how many windows at a time to try."""
    return [256] if device.type == "cpu" else [2**k for k in range(14, 5, -1)]


def _predict(
    classifier: Classifier,
    windows: Windows,
    index: np.ndarray,
    weights: Tensor,
    drawn: Tensor,
    batch: int,
    label: str,
) -> None:
    """Fill `drawn` (2, n) with mean and spread."""

    def moments(values: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        features = classifier.features(values, observed)
        logits = (features @ weights.T + classifier.linear.bias) / classifier.temperature
        sampled = logits.sigmoid()
        return sampled.mean(dim=1), sampled.std(dim=1, correction=0)

    with enough_memory("prediction", windows, batch):
        for k, made in enumerate(windows.map(moments, index, batch, label=label)):
            here = slice(k * batch, (k + 1) * batch)
            drawn[0, here], drawn[1, here] = made


def predict_ensemble(
    members: Iterable[Classifier],
    windows: Windows,
    index: np.ndarray,
    *,
    samples: int = 100,
    seed: int = 0,
    batch: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predict cells with several networks that differ in nothing but their seeds.

    Parameters
    ----------
    members : iterable of Classifier
        Used one after the other: of a generator that loads them never more than two are in memory.
    windows, index, samples, batch, device
        As for `predict`.
    seed : int
        Decides the dropout masks of the first member; seed + 1 those of the second, ...

    Returns
    -------
    likelihood, uncertainty, spread : array (n,)
        float32: mean of the members' likelihoods; root of the mean of their variances over dropout
        samples; standard deviation of the likelihoods between members. Squares of the latter two
        add to the variance over all samples of all members. With one member the first two are
        those of `predict`, and the spread is 0.

    Raises
    ------
    ValueError
        If there are no members.

    Source: Lakshminarayanan et al. 2017, arXiv:1612.01474, section 2.4.
    """
    count, mean, within, between = 0, *np.zeros((3, len(index)))
    for count, member in enumerate(members, start=1):
        likelihood, uncertainty = predict(
            member, windows, index, samples=samples, seed=seed + count - 1, batch=batch,
            device=device, label=f"member {count}",
        )  # fmt: skip
        away = likelihood - mean
        mean += away / count
        between += away * (likelihood - mean)
        within += uncertainty.astype("float64") ** 2
    if count == 0:
        raise ValueError("an ensemble needs at least one member")
    found = mean, np.sqrt(within / count), np.sqrt(between / count)
    likelihood, uncertainty, spread = (values.astype("float32") for values in found)
    return likelihood, uncertainty, spread


def _head_samples(classifier: Classifier, samples: int, seed: int) -> Tensor:
    """Weights of the head under dropout: (samples, features), or the plain ones if 0."""
    weight = classifier.linear.weight  # (1, features)
    if samples == 0:
        return weight
    rate = classifier.dropout.p
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(samples, weight.shape[1], generator=generator) >= rate
    return weight * kept.to(weight.device) / (1 - rate)


def table(
    fold: Fold,
    index: np.ndarray,
    method: str,
    *,
    positive: np.ndarray,
    deposit: np.ndarray,
    likelihood: np.ndarray,
    threshold: float,
    uncertainty: np.ndarray | float = np.nan,
) -> pd.DataFrame:
    """Tabulate predictions of one fold: one row a cell, columns as `PREDICTION_COLUMNS`.

    Parameters
    ----------
    fold : Fold
    index : array (n,) of int
        The predicted centres.
    method : str
    positive, deposit : array (all centres,)
        Labels and deposit numbers.
    likelihood : array (n,)
    threshold : float
        Chosen on validation cells.
    uncertainty : array (n,), optional
    """
    columns = {
        "split": fold.split,
        "fold": str(fold.number),
        "method": method,
        "region": fold.windows.region[index],
        "row": fold.windows.row[index],
        "col": fold.windows.col[index],
        "positive": positive[index],
        "deposit": deposit[index],
        "likelihood": np.asarray(likelihood, "float32"),
        "uncertainty": np.float32(uncertainty),
        "threshold": np.float32(threshold),
    }
    return pd.DataFrame(columns)[PREDICTION_COLUMNS].astype(SMALL)


def tune_and_predict(
    fold: Fold,
    encoder: Encoder,
    method: str,
    positive: np.ndarray,
    deposit: np.ndarray,
    settings: FineTuneSettings,
    *,
    samples: int,
    seed: int,
    device: torch.device,
) -> tuple[Fitted, pd.DataFrame]:
    """Fine-tune on a fold's training cells and predict its test cells once.

    Parameters
    ----------
    fold : Fold
    encoder : Encoder
        Pretrained or not; likely negatives are told by its features if the settings say so.
    method : str
        Its name in the tables.
    positive, deposit : array (all centres,)
        Of `folds.labels`.
    settings : FineTuneSettings
    samples : int
        Dropout samples.
    seed : int
    device : torch.device

    Returns
    -------
    fitted : Fitted
    rows : DataFrame
        Of `table`; empty if the fold has no test cells.
    """
    known = fold.train[positive[fold.train]]
    negatives = choose_negatives(
        fold, positive, settings, seed=seed, encoder=encoder, device=device
    )
    classifier, history = fine_tune(
        encoder,
        fold.windows,
        known,
        negatives,
        fold.validation,
        positive,
        settings,
        seed=seed,
        device=device,
    )
    shared: dict[str, Any] = {"samples": samples, "seed": seed, "device": device}
    # means over dropout samples lie nearer to 0.5 than plain passes: the threshold must know them
    threshold = choose_threshold(
        lambda cells: predict(classifier, fold.windows, cells, **shared)[0],
        fold.validation,
        positive,
        seed=seed,
    )
    likelihood, spread = predict(classifier, fold.windows, fold.test, **shared)
    rows = table(
        fold,
        fold.test,
        method,
        positive=positive,
        deposit=deposit,
        likelihood=likelihood,
        uncertainty=spread,
        threshold=threshold,
    )
    return Fitted(classifier, threshold, history), rows


def choose_threshold(
    score: Callable[[np.ndarray], np.ndarray],
    validation: np.ndarray,
    positive: np.ndarray,
    *,
    seed: int,
) -> float:
    """Return the threshold of the largest F1 on validation cells, the unlabeled ones sampled.

    Parameters
    ----------
    score : function
        Numbers of centres (n,) to likelihoods (n,).
    validation : array (n,) of int
        Centres.
    positive : array (all centres,) of bool
    seed : int
        Of the sample of `THRESHOLD_CELLS` unlabeled cells, each of which counts for several.
    """
    cells, weight = sample_cells(validation, positive, THRESHOLD_CELLS, seed=seed)
    return best_threshold(positive[cells], score(cells), weight)


def predictions_path(study: Study, target: str, source: str) -> Path:
    """Return where a notebook's predictions of test cells lie ("mae" or "baselines")."""
    return study.processed / target / f"predictions_{source}.parquet"


def read_predictions(
    study: Study, target: str, *, columns: Sequence[str] | None = None, **only: str
) -> pd.DataFrame:
    """Read the test-cell predictions of all methods, or some; `NAMES` are categories.

    Parameters
    ----------
    study : Study
    target : str
    columns : sequence of str, optional
        Those of `PREDICTION_COLUMNS` to read, instead of all.
    **only : str
        Columns and the value that they have in the rows to read, such as split="blocks".

    Raises
    ------
    FileNotFoundError
        If notebook 03 or 04 has not run; the network alone, `method="mae"`, needs 03 only.
    """
    sources = {"mae": "03_fine_tuning", "baselines": "04_baselines"}
    if only.get("method") in sources:
        sources = {only["method"]: sources[only["method"]]}
    return artefacts.read_tables(
        {predictions_path(study, target, name): notebook for name, notebook in sources.items()},
        columns=columns,
        only=only,
        categories=NAMES,
    )


def joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Put predictions one below the other, numbered from 0; `NAMES` are categories of them all."""
    kinds = {
        name: pd.CategoricalDtype(sorted(set().union(*(table[name].unique() for table in tables))))
        for name in NAMES
    }
    return pd.concat([table.astype(kinds) for table in tables], ignore_index=True)


def prediction_maps(
    cubes: dict[str, xr.Dataset], windows: Windows, **values: np.ndarray
) -> dict[str, xr.Dataset]:
    """Lay values of all centres on the regions' grids.

    Parameters
    ----------
    cubes : dict of Dataset
        By region, in the order of the windows.
    windows : Windows
    **values : array (n,) or (n, layers)
        E.g. likelihood, uncertainty, attribution.

    Returns
    -------
    dict of Dataset
        By region: `(y, x)` or `(layer, y, x)` float32, NaN where nothing was predicted.
    """
    maps = {}
    for number, (region, cube) in enumerate(cubes.items()):
        dims = {1: ("y", "x"), 2: ("layer", "y", "x")}
        planes = {
            name: (dims[value.ndim], windows.put(value.astype("float32"), number))
            for name, value in values.items()
        }
        coords = {"y": cube["y"], "x": cube["x"]}
        if any(value.ndim == 2 for value in values.values()):
            coords["layer"] = cube["layer"]
        result = xr.Dataset(planes, coords=coords, attrs=cube.attrs)
        maps[region] = result.rio.write_crs(cube.rio.crs).rio.write_transform(cube.rio.transform())
    return maps
