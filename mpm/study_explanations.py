"""What notebook 06 says of real studies, kept in `data/explanations` for whoever has not run them.

The notebooks that come with the compendium are those of the demo. What is said of real ground must
be possible to look up: which layers lead, which kinds of ground there are, which deposits are
missed, and which targets come first.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from mpm import artefacts, record
from mpm.study import Study, load
from mpm.study_scores import FACTS

COLUMNS = ["topic", "row", "what", "value"]
DIGITS = 4
RUN = "06_explanation"
MISSED = "known deposits that are missed (ground that ranked as high where they were held out)"
NEW = "first targets without a known deposit (latitude, longitude)"


def folder() -> Path:
    """Return where the tables lie, one a study and target."""
    return artefacts.home() / "data" / "explanations"


def path(study: Study, target: str) -> Path:
    """Return where notebook 06 leaves the table of its run."""
    return study.processed / target / "explanation.csv"


def write(
    study: Study,
    target: str,
    importances: Mapping[str, pd.Series],
    kinds: pd.DataFrame,
    misses: pd.DataFrame,
    targets: pd.DataFrame,
    system: pd.DataFrame,
    page_bytes: int,
) -> None:
    """Write what a run of notebook 06 found as one long table of texts.

    Parameters
    ----------
    study : Study
    target : str
    importances : mapping of Series
        Method to importance by evidence layer; kept as shares of the sum.
    kinds : DataFrame
        Of `explanation_kinds.kinds_table`.
    misses : DataFrame
        Of `cell_facts.misses`.
    targets : DataFrame
        Of `targets.table`.
    system : DataFrame (kinds, parts)
        Mean contributions, of `explanation_kinds.by_system`.
    page_bytes : int
        Size of the web map.
    """
    shares = pd.DataFrame({method: each / each.sum() for method, each in importances.items()})
    first = shares.columns[0]
    shares = shares.sort_values(first, ascending=False, kind="stable")
    page = pd.DataFrame({"MB": [page_bytes / 1e6]}, index=["web_map.html"])
    tables = {"importance": shares, "kinds": kinds, "mineral system": system}
    tables |= {"misses": misses, "targets": targets, "web map": page}
    rows = [
        (topic, row, what, _text(value))
        for topic, table in tables.items()
        for row, each in table.iterrows()
        for what, value in each.items()
    ]
    with artefacts.atomic(path(study, target)) as fresh:
        pd.DataFrame(rows, columns=COLUMNS).to_csv(fresh, index=False)


def _text(value: object) -> str:
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value)


def keep(study: str, target: str) -> Path:
    """Keep the table of a run on a study, after notebook 06.

    Parameters
    ----------
    study, target : str

    Returns
    -------
    Path
        `STUDY_TARGET.csv`: `COLUMNS`, one value a line; beside it a JSON with the run's commit,
        inputs (SHA-256), packages, and for each notebook its parameters and wall time (s).

    Raises
    ------
    FileNotFoundError
        If notebook 06 has not run on the study and target.
    """
    setup = load(study)
    source = artefacts.require(path(setup, target), RUN)
    place = folder() / f"{setup.name}_{target}.csv"
    made = artefacts.read_facts(record.path(setup), *FACTS)
    facts = {name: made[name] for name in FACTS}
    facts["notebooks"] = {
        name: {key: entry.get(key) for key in ("parameters", "started", "wall_s")}
        for name, entry in record.entries(setup).items()
    }
    artefacts.write_json(place.with_suffix(".json"), facts)
    artefacts.write_text(place, source.read_text(encoding="utf-8"))
    return place


def summary(count: int = 4) -> pd.DataFrame:
    """Lay side by side what leads on each study that is kept.

    Parameters
    ----------
    count : int
        Layers, misses or targets that are named, at most.

    Returns
    -------
    DataFrame
        Texts, a column a study and target: leading layers of each method with their share, leading
        layers of each kind, misses with the share of ground that ranked as high where they were
        held out, and the first targets without a known deposit; empty if nothing is kept.
    """
    columns = {}
    for place in sorted(folder().glob("*.csv")):
        rows = pd.read_csv(place, dtype=str, keep_default_na=False)
        topics = {
            name: part.set_index(["row", "what"])["value"].unstack(sort=False)
            for name, part in rows.groupby("topic")
        }
        kinds, lost, new = topics["kinds"], topics["misses"][:count], topics["targets"]
        new = new[new["known"] == "0"][:count]
        ranks = lost["held_out"].astype(float)
        columns[place.stem] = {
            **_leads(topics["importance"].astype(float), count),
            **kinds["leading layers"].rename("kind {}".format),
            MISSED: ", ".join(
                f"{name} ({r:.0%})" for name, r in zip(lost["name"], ranks, strict=True)
            ),
            NEW: "; ".join(new["latitude"] + ", " + new["longitude"]),
            "web map (MB)": topics["web map"]["MB"].iloc[0],
        }
    return pd.DataFrame(columns).fillna("")


def _leads(shares: pd.DataFrame, count: int) -> dict[str, str]:
    """Name the layers that each method gives most, with their share."""
    leads = {}
    for method, own in shares.items():
        most = own.sort_values(ascending=False, kind="stable")[:count]
        leads[str(method)] = ", ".join(f"{layer} {share:.0%}" for layer, share in most.items())
    return leads
