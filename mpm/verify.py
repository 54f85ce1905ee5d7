"""Compare the figures, tables and maps of two runs of a study, file by file."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import rasterio
from PIL import Image

from mpm import artefacts, pipeline, record, steps
from mpm.study import Study, studies

SAME, CLOSE, CHANGED, NEW, GONE = "identical", "within tolerance", "changed", "new", "missing"
TOLERANCE = 1e-6
_COMPARED = (".parquet", ".csv", ".tif")


@dataclass(frozen=True)
class Verdict:
    """How one file of another run compares with that of the record.

    Attributes
    ----------
    file : str
        E.g. "figures/03_maps.png" or "scores.parquet".
    state : str
        "identical", "within tolerance", "changed", "missing" or "new".
    detail : str
        What differs most.
    """

    file: str
    state: str
    detail: str = ""

    @property
    def passes(self) -> bool:
        """Whether the file is as it should be."""
        return self.state in (SAME, CLOSE)


def rerun(setup: Study, folder: Path) -> None:
    """Run a study's notebooks again, with the recorded parameters, into a fresh folder.

    Figures may be there without the record of their run, as in a fresh clone, which has those of
    the demo: then all notebooks run, with their own parameters.

    Parameters
    ----------
    setup : Study
        Its raw files are read where they lie, or fetched.
    folder : Path
        Gets `processed/<study>` and `figures/<study>`.

    Raises
    ------
    FileNotFoundError
        If there is nothing that another run could be compared with: no manifest of figures.
    NotebookFailed
        If a notebook stops.
    """
    _manifest(setup)
    entries = record.entries(setup)
    if entries:
        again = [step for step in steps.recorded(entries) if step.name in entries]
    else:
        print(f"{setup.name}: no record of a run here; all notebooks run with their own parameters")
        name = setup.name if setup.path in studies().values() else str(setup.path)
        again = steps.choose(steps.options(setup, name, None, None, None, "auto"), {}, None)
    with _outputs_in(folder):
        pipeline.run_steps(setup, again)


def compare(setup: Study, folder: Path, *, tolerance: float = TOLERANCE) -> list[Verdict]:
    """Compare every figure, table and map of a study with those of another run.

    Figures are compared by the SHA-256 of the manifest; those that differ, pixel by pixel. Rows of
    tables may come in any order.

    Parameters
    ----------
    setup : Study
        Its figures and artefacts are the record. Tables and maps are compared if there are any:
        a fresh clone has figures only.
    folder : Path
        Holds `processed/<study>` and `figures/<study>` of the other run.
    tolerance : float
        Numbers a, b agree if `|a - b| <= tolerance (1 + |a|)`; pictures if their pixels, from 0 to
        1, differ by no more on average.

    Returns
    -------
    list of Verdict
        Figures first, then tables and maps.

    Raises
    ------
    FileNotFoundError
        If the record has no manifest, or the folder has no such run.
    """
    _manifest(setup)
    figures, made = folder / "figures" / setup.name, folder / "processed" / setup.name
    if not figures.is_dir():
        raise FileNotFoundError(f"{folder} holds no figures/{setup.name}; is it a folder of a run?")
    sums = {each["figure"]: each["sha256"] for each in record.manifest(setup)}
    others = {path.name for path in figures.glob("*.png")}
    verdicts = [
        _figure(name, sums.get(name), setup.figures / name, figures / name, tolerance)
        for name in sorted(sums.keys() | others)
    ]
    tables = _tables(setup.processed)
    others = _tables(made) if tables else set()
    return verdicts + [
        _table(name, setup.processed / name, made / name, tolerance)
        for name in sorted(tables | others)
    ]


def _manifest(setup: Study) -> None:
    """Refuse a study without a list of the figures that are to be found again."""
    place = setup.figures / "manifest.json"
    if not place.exists():
        raise FileNotFoundError(f"{place} is missing; run `mpm run {setup.name}` first")


@contextmanager
def _outputs_in(folder: Path) -> Iterator[None]:
    """Have artefacts and figures written below a folder."""
    places = {"MPM_PROCESSED": folder / "processed", "MPM_FIGURES": folder / "figures"}
    before = {name: os.environ.get(name) for name in places}
    os.environ |= {name: str(place.resolve()) for name, place in places.items()}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def scratch() -> tempfile.TemporaryDirectory:
    """Return a temporary folder for a rerun, which is removed when its context ends."""
    return tempfile.TemporaryDirectory(prefix="mpm-verify-")


def _tables(folder: Path) -> set[str]:
    """Name tables and maps below a folder; parts of Zarr stores are none."""
    paths = (path for path in folder.rglob("*") if path.suffix in _COMPARED)
    return {path.relative_to(folder).as_posix() for path in paths}


def _figure(
    name: str, checksum: str | None, recorded: Path, again: Path, tolerance: float
) -> Verdict:
    file = f"figures/{name}"
    if not again.exists():
        return Verdict(file, GONE, "not drawn by the other run")
    if checksum is None:
        return Verdict(file, NEW, "not in the manifest")
    if artefacts.sha256(again) == checksum:
        return Verdict(file, SAME)
    if not recorded.exists():
        return Verdict(file, CHANGED, "the recorded picture is gone")
    try:
        one, other = (
            np.asarray(Image.open(path).convert("RGB"), float) for path in (recorded, again)
        )
    except OSError as error:
        return Verdict(file, CHANGED, f"cannot be compared: {error}")
    if one.shape != other.shape:
        sizes = [f"{each.shape[1]} x {each.shape[0]}" for each in (one, other)]
        return Verdict(file, CHANGED, f"{sizes[0]} pixels became {sizes[1]}")
    apart = np.abs(one - other) / 255
    text = f"{100 * (apart > 0).any(axis=2).mean():.3g} % of pixels, by {apart.mean():.2g} of 1"
    return Verdict(file, CLOSE if apart.mean() <= tolerance else CHANGED, text)


def _table(name: str, recorded: Path, again: Path, tolerance: float) -> Verdict:
    if not again.exists():
        return Verdict(name, GONE, "not written by the other run")
    if not recorded.exists():
        return Verdict(name, NEW, "not in the record")
    if artefacts.sha256(recorded) == artefacts.sha256(again):
        return Verdict(name, SAME)
    try:
        if recorded.suffix == ".tif" and (text := _otherwise(recorded, again)):
            return Verdict(name, CHANGED, text)
        one, other = _read(recorded), _read(again)
    except (ValueError, OSError) as error:
        return Verdict(name, CHANGED, f"cannot be compared: {error}")
    if list(one) != list(other) or len(one) != len(other):
        shapes = " became ".join(f"{len(each)} rows x {each.shape[1]}" for each in (one, other))
        return Verdict(name, CHANGED, shapes)
    apart = {column: _apart(one[column], other[column]) for column in one}
    worst = max(apart, key=lambda column: apart[column], default="")
    if not apart or apart[worst] == 0:
        return Verdict(name, SAME, "same values")
    text = f"column {worst!r} by {apart[worst]:.2g}"
    return Verdict(name, CLOSE if apart[worst] <= tolerance else CHANGED, text)


def _otherwise(recorded: Path, again: Path) -> str:
    """Say in what two rasters differ beside their values; nothing if in nothing."""
    with rasterio.open(recorded) as one, rasterio.open(again) as other:
        for fact in ("shape", "crs", "transform", "nodata", "dtypes", "descriptions"):
            # as texts, in which NaN equals NaN
            then, now = (" ".join(str(getattr(each, fact)).split()) for each in (one, other))
            if then != now:
                return f"{fact} {then} became {now}"
    return ""


def _read(path: Path) -> pd.DataFrame:
    """Read a table, or a raster's bands as columns; rows in an order of their own."""
    if path.suffix == ".tif":
        with rasterio.open(path) as source:
            return pd.DataFrame({f"band {i}": source.read(i).ravel() for i in source.indexes})
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    labels = [name for name in table if not pd.api.types.is_float_dtype(table[name])]
    return table.sort_values(labels, kind="stable", ignore_index=True) if labels else table


def _apart(one: pd.Series, other: pd.Series) -> float:
    """Return the largest |a - b| / (1 + |a|); infinite where other than numbers differ."""
    if not all(pd.api.types.is_float_dtype(each) for each in (one, other)):
        return 0.0 if one.equals(other) else np.inf
    a, b = one.to_numpy(float), other.to_numpy(float)
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return np.inf
    with np.errstate(invalid="ignore"):  # of infinities
        share = np.where(a == b, 0.0, np.abs(a - b) / (1 + np.abs(a)))
    share[np.isnan(share) & ~np.isnan(a)] = np.inf  # an infinity against another number
    return float(np.nanmax(share, initial=0.0))
