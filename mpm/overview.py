"""What the overview shows of a study's last run: is it there, its headline scores, its maps."""

from collections.abc import Iterable

import pandas as pd

from mpm import artefacts, record
from mpm.study import Study, studies

HEADLINE = {
    "auc": "AUC",
    "average_precision": "average precision",
    "capture_05": "capture at 5 % of area",
}
SPLITS = ("blocks", "latitude", "district", "region", "random")


def missing(study: Study, target: str, *, seed: int) -> str:
    """Say which command makes what the overview shows; nothing if it is there.

    Parameters
    ----------
    study : Study
    target : str
    seed : int
        Of the run that is to be shown.
    """
    if len(_scores(study, target, seed)):
        return ""
    name = study.name if study.path in studies().values() else study.path
    done = sum(entry["status"] == "done" for entry in record.entries(study).values())
    return (
        f"No scores of {target} in study {study.name} with seed {seed} yet; {done} notebooks are "
        f"done. `mpm run {name} --target {target} --seed {seed}` makes them, and this page again."
    )


def headline(study: Study, target: str, *, seed: int, methods: Iterable[str]) -> pd.DataFrame:
    """Lay out the main scores: value and 95 % interval, methods down, splits and scores across.

    All scores of the hardest split, and the AUC of the others for contrast.

    Parameters
    ----------
    study : Study
    target : str
    seed : int
    methods : iterable of str
        Order in which they stand; others follow.

    Returns
    -------
    DataFrame of str
        Index method, columns split and score.

    Raises
    ------
    FileNotFoundError
        If there are no such scores; says which command makes them.
    """
    scores = _scores(study, target, seed)
    if scores.empty:
        raise FileNotFoundError(missing(study, target, seed=seed))
    rows = scores[scores["metric"].isin(HEADLINE)]
    text = [
        f"{value:.3f}" if pd.isna(low) else f"{value:.3f} ({low:.2f} to {high:.2f})"
        for value, low, high in rows[["value", "low", "high"]].itertuples(index=False)
    ]
    table = rows.assign(text=text, metric=rows["metric"].map(HEADLINE))
    table = table.pivot(index="method", columns=["split", "metric"], values="text").fillna("")
    splits = [*SPLITS, *sorted(set(rows["split"]) - set(SPLITS))]
    first, *others = [split for split in splits if split in set(rows["split"])]
    order = [(first, name) for name in HEADLINE.values()]
    order += [(split, next(iter(HEADLINE.values()))) for split in others]
    known = [*methods, *sorted(set(table.index) - set(methods))]
    table = table.loc[[name for name in known if name in table.index]]
    return table[[column for column in order if column in table.columns]]


def facts(study: Study) -> pd.DataFrame:
    """Tabulate what the last run was: each notebook with its state, wall time and peak memory.

    Returns
    -------
    DataFrame
        notebook, state, made (UTC), minutes, memory (GB), figures; no rows without a run, nor of
        the overview itself, which is running when it asks.
    """
    rows = [
        {
            "notebook": name,
            "state": entry["status"],
            "made": entry["started"],
            "minutes": round(entry.get("wall_s", 0) / 60, 1),
            "memory (GB)": round(entry.get("peak_mb", 0) / 1000, 1),
            "figures": len(entry.get("figures", [])),
        }
        for name, entry in record.entries(study).items()
        if not name.startswith("00_")
    ]
    columns = ["notebook", "state", "made", "minutes", "memory (GB)", "figures"]
    return pd.DataFrame(rows, columns=columns)


def _scores(study: Study, target: str, seed: int) -> pd.DataFrame:
    """Return mean scores of a target and seed; empty if there are none."""
    place = study.processed / "scores.parquet"
    if not place.exists():
        return pd.DataFrame({"metric": []})
    scores = artefacts.read_table(place, "05_evaluation")
    mine = (scores["target"] == target) & (scores["seed"] == seed) & (scores["fold"] == "mean")
    return scores[mine]
