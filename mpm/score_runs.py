"""Score every split and method of a table of predictions, what is scored already left as it is."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from mpm import artefacts, bootstrap, curves, metrics, prediction
from mpm.metrics import Prediction, score_folds
from mpm.score_rows import ADDED
from mpm.score_store import RUN, append_scores, read_scores

SCORED = ["fold", "region", "row", "col", "positive", "deposit", "likelihood", "threshold"]
Folds = dict[str, Prediction]
Planes = Sequence[np.ndarray]


def by_fold(rows: pd.DataFrame) -> Folds:
    """Split one method's predictions (columns of `mapping.PREDICTION_COLUMNS`) into folds."""
    return {
        fold: Prediction(
            part["positive"].to_numpy(),
            part["likelihood"].to_numpy(),
            part["deposit"].to_numpy(),
            float(part["threshold"].iloc[0]),
        )
        for fold, part in rows.groupby("fold", sort=True, observed=True)
    }


def score_all(
    predictions: pd.DataFrame,
    path: Path,
    *,
    study: str,
    target: str,
    hidden: Planes | None = None,
    truth: Planes | None = None,
    draws: int = 500,
    seed: int = 0,
    workers: int = 2,
) -> pd.DataFrame:
    """Score every split, method and seed, and keep the scores in the study's table.

    What the table holds of identical predictions, scored by the same code with the same options, is
    not computed again: a digest of them lies beside the table.

    Parameters
    ----------
    predictions : DataFrame
        Columns of `mapping.PREDICTION_COLUMNS`, and perhaps `seed`, of the training.
    path : Path
        Parquet file of the scores; made if missing. Digests lie in `<name>_made_of.json` beside it.
    study, target : str
        Whose predictions they are.
    hidden, truth : sequence of array (y, x), optional
        As for `score_against_truth`, whose rows are then added.
    draws, seed : int
        Of the bootstrap. The seed also names the run if predictions have none.
    workers : int
        Processes.

    Returns
    -------
    DataFrame
        The rows of the table of these splits, methods and seeds, the same at every call: without
        what notebook 05 has added of them since (`score_rows.ADDED`).

    Raises
    ------
    ValueError
        If there is nothing to score, or only one of hidden and truth is given.
    """
    if predictions.empty or (hidden is None) != (truth is None):
        raise ValueError("score_all needs predictions, and hidden and truth together or neither")
    runs = _runs(predictions, study, target, seed)
    options = {"hidden": hidden, "truth": truth, "draws": draws, "seed": seed}
    rules = _rules(options)
    made_of = {run: _digest(rows, rules) for run, rows in runs.items()}
    place = Path(path).with_name(f"{Path(path).stem}_made_of.json")
    known = _known(Path(path), place)
    fresh = [run for run in runs if known.get(_name(run)) != made_of[run]]
    print(f"scoring {len(fresh)} runs (split x method x seed); {len(runs) - len(fresh)} are there")
    if fresh:
        score = joblib.delayed(_score)
        parallel = joblib.Parallel(n_jobs=min(workers, len(fresh)))
        tables = parallel(score(run, runs[run], options) for run in fresh)
        append_scores(path, pd.concat(tables, ignore_index=True), {})
        known |= {_name(run): made_of[run] for run in fresh}
        artefacts.write_json(place, dict(sorted(known.items())))
    table = read_scores(path)
    here = pd.MultiIndex.from_frame(table[RUN]).isin(list(runs))
    return table[here & ~table["metric"].str.contains(ADDED)].reset_index(drop=True)


def _runs(predictions: pd.DataFrame, study: str, target: str, seed: int) -> dict:
    """Part predictions into runs: (study, target, split, seed, method) to the cells."""
    numbers = predictions["seed"] if "seed" in predictions else seed
    keys = predictions[["split", "method"]].assign(seed=numbers).astype("category")
    cells = predictions[SCORED].astype({"fold": "category"})  # strings are slow to take
    found = keys.groupby(["split", "seed", "method"], sort=True, observed=True).indices
    return {
        (study, target, split, int(number), method): cells.take(places)
        for (split, number, method), places in found.items()
    }


def _score(run: Sequence[str | int], rows: pd.DataFrame, options: Mapping) -> pd.DataFrame:
    drawn = {name: options[name] for name in ("draws", "seed")}
    table = score_folds(by_fold(rows), **drawn)
    if options["truth"] is not None:
        more = score_against_truth(rows, options["hidden"], options["truth"], **drawn)
        table = pd.concat([table, more], ignore_index=True)
    return table.assign(**dict(zip(RUN, run, strict=True)))


def _name(run: Sequence[str | int]) -> str:
    return " ".join(map(str, run))


def _known(path: Path, place: Path) -> dict[str, str]:
    """Digests of the runs that the table still holds."""
    if not (path.exists() and place.exists()):
        return {}
    table = read_scores(path)[RUN].drop_duplicates()
    held = set(map(_name, table.itertuples(index=False)))
    return {run: made for run, made in artefacts.read_json(place).items() if run in held}


def _rules(options: Mapping) -> bytes:
    """Hash what all scores follow from: options, truth, and the code that scores."""
    total = hashlib.sha256(repr([options["draws"], options["seed"]]).encode())
    for module in (bootstrap, curves, metrics, prediction):
        total.update(Path(str(module.__file__)).read_bytes())
    total.update(Path(__file__).read_bytes())
    for plane in [*(options["hidden"] or ()), *(options["truth"] or ())]:
        total.update(np.ascontiguousarray(plane).tobytes())
    return total.digest()


def _digest(rows: pd.DataFrame, rules: bytes) -> str:
    """Hash a run's predictions together with the rules."""
    total = hashlib.sha256(rules)
    for column in SCORED:
        total.update(pd.util.hash_pandas_object(rows[column], index=False).to_numpy().tobytes())
    return total.hexdigest()[:16]


def score_against_truth(
    rows: pd.DataFrame,
    hidden: list[np.ndarray],
    truth: list[np.ndarray],
    *,
    draws: int,
    seed: int,
) -> pd.DataFrame:
    """Score one method on what only the demo knows.

    Parameters
    ----------
    rows : DataFrame
        One split and method.
    hidden, truth : list of array (y, x)
        Of `undiscovered`, and the true probability, a region each.
    draws, seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        fold, metric, value, low, high; metrics `<metric>_undiscovered` (known positive cells left
        out) and `correlation_with_truth` (Spearman; 0 of a likelihood that is the same everywhere).
    """
    number = read_cells(hidden, rows).astype(int)
    unknown = rows.assign(positive=number >= 0, deposit=number)[~rows["positive"].to_numpy()]
    table = score_folds(by_fold(unknown), draws=draws, seed=seed)
    table["metric"] += "_undiscovered"
    true = pd.Series(read_cells(truth, rows), index=rows.index)
    found = {
        fold: _rank_correlation(part["likelihood"], true[part.index])
        for fold, part in rows.groupby("fold", sort=True, observed=True)
    }
    found["mean"] = float(np.mean(list(found.values())))
    correlation = pd.DataFrame({"fold": list(found), "value": list(found.values())})
    correlation = correlation.assign(metric="correlation_with_truth", low=np.nan, high=np.nan)
    return pd.concat([table, correlation[table.columns]], ignore_index=True)


def _rank_correlation(likelihood: pd.Series, true: pd.Series) -> float:
    if likelihood.nunique() < 2:  # a model that learned nothing at all
        return 0.0
    return float(spearmanr(likelihood, true, nan_policy="omit").statistic)


def read_cells(planes: list[np.ndarray], rows: pd.DataFrame) -> np.ndarray:
    """Read planes (y, x), a region each, at the rows' cells."""
    values = np.empty(len(rows))
    for number, plane in enumerate(planes):
        here = (rows["region"] == number).to_numpy()
        values[here] = plane[rows["row"].to_numpy()[here], rows["col"].to_numpy()[here]]
    return values
