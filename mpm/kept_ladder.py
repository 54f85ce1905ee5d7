"""The ladder of the published protocol on a real study, kept in `data/scores/ladders`.

The rule by which the published protocol picks its negatives can be shown best on the tile that its
authors published, which readers of the demo's notebooks have not run.
"""

from pathlib import Path

import pandas as pd

from mpm import artefacts, as_released, datacube, mae, pretraining
from mpm.study import load

COLUMNS = ["study", "target", "seed", "split", "method", "metric", "value", "low", "high"]
METRICS = ("auc", "average_precision", "mcc", "positives", "negatives")
DIGITS = 4


def folder() -> Path:
    """Return where the tables lie, one a study and target."""
    return artefacts.home() / "data" / "scores" / "ladders"


def keep(study: str, target: str, *, seed: int = 7, repeats: int = 5, processes: int = 2) -> Path:
    """Climb the ladder on a study, after notebook 01, and keep its mean scores.

    Parameters
    ----------
    study, target : str
    seed : int
    repeats : int
        Random splits behind each step.
    processes : int

    Returns
    -------
    Path
        A table `STUDY_TARGET.csv`: `COLUMNS`, the split being the step.

    Raises
    ------
    FileNotFoundError
        If notebook 01 has not run.
    ValueError
        If the target has too few positive cells for the first step.
    """
    setup = load(study)
    cubes = datacube.read_cubes(setup)
    few = as_released.obstacle(list(cubes.values()), target)
    if few:
        raise ValueError(few)
    window = mae.preset("demo", next(iter(cubes.values())).sizes["layer"]).window
    settings = pretraining.split_settings(setup, cubes, window, seed=seed)
    rows = as_released.ladder(
        setup,
        target,
        split_settings=settings,
        preset="demo",
        seed=seed,
        repeats=repeats,
        processes=processes,
    )
    scores = as_released.score(rows, seed=seed)
    scores = scores[(scores["fold"] == "mean") & scores["metric"].isin(METRICS)]
    place = folder() / f"{setup.name}_{target}.csv"
    place.parent.mkdir(parents=True, exist_ok=True)
    table = scores.assign(study=setup.name, target=target, seed=seed)[COLUMNS].round(DIGITS)
    with artefacts.atomic(place) as fresh:
        table.to_csv(fresh, index=False)
    return place


def read() -> pd.DataFrame:
    """Read all that is kept: `COLUMNS` with fold "mean", as rows of `as_released.score`."""
    tables = [pd.read_csv(path) for path in sorted(folder().glob("*.csv"))]
    if not tables:
        return pd.DataFrame(columns=[*COLUMNS, "fold"])
    return pd.concat(tables, ignore_index=True).assign(fold="mean")
