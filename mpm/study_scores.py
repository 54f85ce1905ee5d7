"""Scores of whole runs on real studies, kept in `data/scores` for whoever has not run them.

The notebooks that come with the compendium are those of the demo. What the same methods, splits and
settings give on real ground is kept here, small enough for the repository: mean scores with their
intervals, and beside them what they were made of.
"""

from pathlib import Path

import pandas as pd

from mpm import artefacts, record
from mpm.mapping import read_predictions
from mpm.score_store import read_scores
from mpm.study import load

METRICS: tuple[str, ...] = (
    "auc",
    "auc_deposit",
    "average_precision",
    "f1",
    "mcc",
    "balanced_accuracy",
)
METRICS += ("capture_01", "capture_05", "capture_10", "prevalence", "deposits", "folds")
METRICS += ("train_auc",)
COLUMNS = ["study", "target", "seed", "split", "method", "metric", "value", "low", "high"]
FACTS: tuple[str, ...] = ("study_hash", "commit", "dirty", "seed", "inputs", "packages")
FACTS += ("python", "platform", "threads")
DIGITS = 4  # of scores; an interval is never known better


def folder() -> Path:
    """Return where the tables lie, one a study and target."""
    return artefacts.home() / "data" / "scores"


def keep(study: str, target: str, *, seed: int = 7) -> Path:
    """Keep the mean scores of a run on a study, after notebook 05.

    Parameters
    ----------
    study, target : str
    seed : int
        Of the run.

    Returns
    -------
    Path
        A table `STUDY_TARGET.csv`: `COLUMNS`, one row a split, method and metric of `METRICS`;
        beside it a JSON with the run's commit, inputs (SHA-256), packages, and for each notebook
        its parameters, wall time (s) and peak memory (MB).

    Raises
    ------
    FileNotFoundError
        If notebook 05 has not run.
    ValueError
        If it has not run, or not last, with this target and seed.
    """
    setup = load(study)
    path = setup.processed / "scores.parquet"
    scores = read_scores(path)
    own = scores[(scores["target"] == target) & (scores["seed"] == seed)]
    own = own[(own["fold"] == "mean") & own["metric"].isin(METRICS)]
    if own.empty:
        raise ValueError(
            f"{path} has no scores of {target}, seed {seed}; "
            f"`mpm run {study} --target {target} --seed {seed}` makes them"
        )
    place = folder() / f"{setup.name}_{target}.csv"
    made = artefacts.read_facts(record.path(setup), *FACTS)
    run = record.entries(setup).get("05_evaluation", {}).get("parameters", {})
    if (made["seed"], run.get("target", target)) != (seed, target):
        raise ValueError(
            f"the last run on {study!r} was of {run.get('target', target)}, seed {made['seed']}; "
            f"`mpm run {study} --target {target} --seed {seed}` again"
        )
    tested = read_predictions(setup, target, columns=["split", "method"]).drop_duplicates()
    last = pd.MultiIndex.from_frame(tested)  # older scores of other methods may lie beside them
    fresh = pd.MultiIndex.from_frame(own[["split", "method"]]).isin(last)
    own = own[fresh | (own["method"] == "oracle")]
    facts = {name: made[name] for name in FACTS}
    facts["notebooks"] = {
        name: {key: entry.get(key) for key in ("parameters", "started", "wall_s", "peak_mb")}
        for name, entry in record.entries(setup).items()
    }
    artefacts.write_json(place.with_suffix(".json"), facts)
    with artefacts.atomic(place) as fresh:
        own[COLUMNS].round(DIGITS).to_csv(fresh, index=False)
    return place


def read() -> pd.DataFrame:
    """Read all that is kept: `COLUMNS`, in the order of studies and targets.

    Returns
    -------
    DataFrame
        With fold "mean", as rows of a study's own table of scores.
    """
    tables = [pd.read_csv(path) for path in sorted(folder().glob("*.csv"))]
    if not tables:
        return pd.DataFrame(columns=[*COLUMNS, "fold"])
    return pd.concat(tables, ignore_index=True).assign(fold="mean")
