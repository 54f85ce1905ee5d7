"""What is known of the data cube of Lawley et al. 2022: columns, classes, labels, feature sets."""

import difflib
from collections.abc import Iterable
from functools import cache, lru_cache

import pyarrow as pa

from mpm import artefacts, hexagons

TEXT = pa.dictionary(pa.int32(), pa.string())


@lru_cache(maxsize=1)
def facts() -> dict:
    """Return `data/lawley2022.json`: each part says where it was read."""
    return artefacts.read_json(artefacts.home() / "data" / "lawley2022.json")


def columns() -> dict[str, dict]:
    """Return the 97 published columns in file order: kind, and units where they are known."""
    return facts()["columns"]["table"]


@lru_cache(maxsize=1)
def merged() -> dict[str, tuple[str, dict[str, str]]]:
    """Return the columns of merged classes: the column each comes from, and what becomes what."""
    tables = facts()["merged_classes"]
    return {
        f"{name}_Merged": (name, tables[word])
        for name in columns()
        for word in ("lithology", "period")
        if column_type(name) == TEXT and name.startswith(f"Geology_{word.title()}_")
    }


def label_columns() -> list[str]:
    """Return the columns that are labels or made from labels: none may be evidence."""
    published = [name for name, column in columns().items() if column["kind"] == "label"]
    return published + [f"Label_{name}" for name in facts()["labels"]["table"]]


@cache
def column_type(name: str) -> pa.DataType:
    """Return the type of a published column's values, as they are kept."""
    special = {hexagons.KEY: pa.uint64(), "H3_Resolution": pa.int8()}
    special |= dict.fromkeys(["Longitude_EPSG4326", "Latitude_EPSG4326"], pa.float64())
    kinds = {"continuous": pa.float32(), "boolean": pa.bool_(), "label": pa.bool_()}
    return special.get(name) or kinds.get(columns()[name]["kind"], TEXT)


@lru_cache(maxsize=1)
def schema() -> pa.Schema:
    """Return the columns of the Parquet file; labels are marked, so that none becomes evidence."""
    kept = [name for name, column in columns().items() if column["kind"] != "dropped"]
    types = {name: column_type(name) for name in kept} | dict.fromkeys(merged(), TEXT)
    types |= dict.fromkeys([*facts()["dictionaries"]["table"], *label_columns()], pa.bool_())
    fields = []
    for name, kind in types.items():
        about = {"units": columns().get(name, {}).get("units", "")}
        marked = hexagons.LABEL if name in label_columns() else {}
        fields.append(pa.field(name, kind, metadata=about | marked))
    return pa.schema(fields)


def features(words: str) -> list[str]:
    """Return the columns of a feature set, which never hold a label or the name of a place.

    Parameters
    ----------
    words : str
        "baseline", "updated" or "preferred": the sets of the published models. "all": every column
        of numbers, booleans or classes, merged where the published models merged them. Or names of
        columns with commas between.

    Returns
    -------
    list of str
        Columns of the Parquet file.

    Raises
    ------
    ValueError
        If a name is none of these, or is a label; the message lists the nearest names.
    """
    sets = {name: names for name, names in facts()["feature_sets"].items() if name != "source"}
    usable = [name for name in schema().names if name in merged() or _is_evidence(name)]
    replaced = [origin for origin, _ in merged().values()]
    sets["all"] = [name for name in usable if name not in replaced]
    chosen = sets.get(words) or [name.strip() for name in words.split(",")]
    for name in chosen:
        if name in label_columns():
            raise ValueError(f"{name} is a label or made from one; it cannot be a feature")
        if name not in usable:
            raise ValueError(f"{name!r} is no feature{near(name, [*sets, *usable])}")
    return chosen


def _is_evidence(name: str) -> bool:
    if name in facts()["dictionaries"]["table"]:
        return True
    return columns().get(name, {}).get("kind") in ("continuous", "boolean", "categorical")


def near(name: str, names: Iterable[str]) -> str:
    """Return " (nearest: ...)" with up to three names that are like a given one, or nothing."""
    found = difflib.get_close_matches(name, list(names), n=3, cutoff=0.6)
    return f" (nearest: {', '.join(found)})" if found else ""
