"""Points as people have them: tables with any delimiter and encoding, or vector files."""

import csv
import io
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely
import xarray as xr

from mpm import geography, vector_files
from mpm.layers import read_crs
from mpm.vector_files import VECTORS, check_place
from mpm.vector_files import read as read_vectors

_DELIMITERS = ";\t|,"  # in this order where a heading has as many of two
_DECIMAL_COMMA = r"^([+-]?\d*),(\d+(?:[eE][+-]?\d+)?)$"
_HEAD = 20  # lines at the top among which the headings are looked for
_MISSING = ["", "na", "n/a", "nan", "null", "none", "-"]


def read(path: Path, what: str) -> pd.DataFrame:
    """Read a table of points, or the points of a vector file.

    Parameters
    ----------
    path : Path
        Text (UTF-8 with or without a byte order mark, UTF-16 or Latin-1; columns parted by comma,
        semicolon, tab, bar or blanks), or a vector file as `vectors.features` reads.
    what : str
        Who needs it, for messages, e.g. "deposits".

    Returns
    -------
    DataFrame
        Of a table: its columns as text, NaN where blank, the line number of each row as index;
        `attrs["below"]` holds the lines near the top, by number, that look like headings. Of a
        vector file: a GeoDataFrame, the number of each feature (FID) as index.

    Raises
    ------
    ValueError
        If the file is no table of text, or a vector file without CRS, or not of points.
    """
    if path.is_dir():
        raise ValueError(f"{what}: {path} is a folder; name the file")
    return _features(path, what) if path.suffix.lower() in VECTORS else _table(path, what)


def place(
    table: pd.DataFrame, path: Path, what: str, cells: xr.DataArray, *, x: str, y: str, crs: str
) -> np.ndarray:
    """Return where points lie in a region's CRS.

    Parameters
    ----------
    table : DataFrame
        Of `read`.
    path, what
        As for `read`.
    cells : DataArray (y, x)
        The region's grid.
    x, y, crs : str
        Columns of a table's coordinates, and their CRS; a vector file has its own.

    Returns
    -------
    array (n, 2)
        x, y (m); infinite if the region's CRS can't show the point.

    Raises
    ------
    ValueError
        If a coordinate is missing, is no number or no latitude, coordinates can't be in their CRS,
        or x and y look exchanged, in all or some rows. The message names the line.
    """
    known, given = coordinates(table, path, what, x=x, y=y, crs=crs)
    if isinstance(table, gpd.GeoDataFrame):
        x, y = "x", "y"
    in_metres = (np.abs(given) > 540).any(axis=1)  # one such row is a slip
    if len(given) and (not known.is_geographic or in_metres.mean() > 0.5):
        bounds = (*given.min(axis=0), *given.max(axis=0))
        check_place(bounds, known, f"{what}: {path}", cells)
    if known.is_geographic:
        _refuse(
            in_metres, table, f"{what}: {path}", f"{x!r} or {y!r} is not in degrees; correct it"
        )
        why = f"{y!r} is no latitude; exchange x and y, or correct the CRS, {known.name}"
        _refuse(np.abs(given[:, 1]) > 90, table, f"{what}: {path}", why)
    to_grid = pyproj.Transformer.from_crs(known, cells.rio.crs, always_xy=True)
    there = np.column_stack(to_grid.transform(*given.T))
    exchanged = np.column_stack(to_grid.transform(*given.T[::-1]))
    if not within(there, cells).any() and within(exchanged, cells).sum() > len(there) / 2:
        raise ValueError(
            f"{what}: {path} has no point in the region, but most of them lie there if {x!r} and "
            f"{y!r} are exchanged; exchange x and y"
        )
    if known.is_geographic:
        why = f"outside the region, but inside if {x!r} and {y!r} are exchanged; exchange them"
        _refuse(_swapped(there, exchanged, known, cells), table, f"{what}: {path}", why)
    return there


def coordinates(
    table: pd.DataFrame, path: Path, what: str, *, x: str, y: str, crs: str
) -> tuple[pyproj.CRS, np.ndarray]:
    """Return the CRS of points and their coordinates in it, (n, 2).

    Parameters
    ----------
    table, path, what, x, y, crs
        As for `place`.

    Raises
    ------
    ValueError
        If the CRS is unknown, or a coordinate is missing or no number.
    """
    if isinstance(table, gpd.GeoDataFrame):
        return table.crs, shapely.get_coordinates(table.geometry.values)
    try:
        known = read_crs(crs)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    given = np.column_stack([numbers(table, name, path, what) for name in (x, y)])
    for name, values in zip((x, y), given.T, strict=True):
        _refuse(np.isnan(values), table, f"{what}: {path}", f"column {name!r} is not a number")
    return known, given


def numbers(table: pd.DataFrame, name: str | None, path: Path, what: str) -> np.ndarray:
    """Return a column as numbers, NaN where it is blank: (n,).

    Parameters
    ----------
    table : DataFrame
    name : str or None
        Of the column.
    path, what
        Its file, and whose it is, for the message.

    Raises
    ------
    ValueError
        If there is no such column, or it holds what is no number; the message names the line.
    """
    column = vector_files.column(table, name, what, path)
    if pd.api.types.is_numeric_dtype(column):
        values = column.to_numpy("float64", na_value=np.nan)
    else:
        text = column.astype("str")
        if table.attrs.get("delimiter") != ",":
            text = text.str.replace(_DECIMAL_COMMA, r"\1.\2", regex=True)
        values = pd.to_numeric(text, errors="coerce").to_numpy("float64")
    wrong = ~np.isfinite(values) & column.notna().to_numpy()
    _refuse(wrong, table, f"{what}: {path}", f"column {name!r} is not a number")
    return values


def within(points: np.ndarray, cells: xr.DataArray, margin: float = 0) -> np.ndarray:
    """Say which points (n, 2) lie in a region or at most `margin` (m) beside it: bool (n,)."""
    west, south, east, north = cells.rio.bounds()
    low, high = np.array([west, south]) - margin, np.array([east, north]) + margin
    return np.all((points >= low) & (points <= high), axis=1)


def lines(wrong: np.ndarray, table: pd.DataFrame) -> str:
    """Name the rows of a table where `wrong` (n,) holds: "line 3" or "lines 3, 7, 9 and 4 more"."""
    found = table.index[wrong]
    noun = "feature" if isinstance(table, gpd.GeoDataFrame) else "line"
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"{noun}{'s' * (len(found) > 1)} {', '.join(map(str, found[:3]))}{more}"


def _refuse(wrong: np.ndarray, table: pd.DataFrame, where: str, why: str) -> None:
    if wrong.any():
        raise ValueError(f"{where}, {lines(wrong, table)}: {why}")


def _swapped(
    there: np.ndarray, exchanged: np.ndarray, crs: pyproj.CRS, cells: xr.DataArray
) -> np.ndarray:
    """Say which points have their coordinates exchanged, if it is no chance: bool (n,)."""
    outside = ~within(there, cells)
    swapped = outside & within(exchanged, cells)
    # a file of the whole globe has points there by right, among many more outside the region
    enough = swapped.sum() >= min(3, 0.1 * len(there)) and swapped.sum() > outside.sum() / 2
    if not (swapped.any() and enough):
        return np.zeros(len(there), bool)
    box = geography.window(cells, crs, 0)
    assert box is not None  # some points do lie in the region
    west, south, east, north = box
    # where longitudes and latitudes are alike, neighbours of the region look exchanged
    alike = any(west + turn <= north and south <= east + turn for turn in (-360, 0, 360))
    return swapped & (not alike)


def _features(path: Path, what: str) -> gpd.GeoDataFrame:
    table = read_vectors(path, what).explode()  # a multipoint of one point is common
    kinds = sorted(set(table.geom_type))
    if kinds != ["Point"]:
        raise ValueError(f"{what}: {path} holds {', '.join(kinds)}; it must hold points")
    return table


def _table(path: Path, what: str) -> pd.DataFrame:
    text = _decoded(path.read_bytes())
    if "\0" in text or not text.strip():
        wrong = "it is not text" if text.strip() else "it is empty"
        raise ValueError(f"{what}: {path} cannot be read ({wrong})")
    heading, below = text.lstrip().splitlines()[0], _headings_below(text)
    delimiter = max(_DELIMITERS, key=heading.count)
    if delimiter not in heading:
        delimiter, text = " ", "\n".join(" ".join(line.split()) for line in text.splitlines())
    try:
        names, rows, lines = _rows(text, delimiter)
    except csv.Error as error:
        lower = f"; if line {min(below, default=0)} holds the names, delete the lines above it"
        lower = lower if below else ""
        raise ValueError(f"{what}: {path} cannot be read ({error}){lower}") from error
    table = pd.DataFrame(rows, columns=names, index=lines, dtype="str")
    table = table.mask(table.apply(lambda column: column.str.casefold().isin(_MISSING)))
    table.attrs |= {"delimiter": delimiter, "below": below}
    return table


def _headings_below(text: str) -> dict[int, list[str]]:
    """Return the lines near the top, but for the first, that may be headings, parted, by number."""
    found, is_first = {}, True
    for number, line in enumerate(text.splitlines()[:_HEAD], start=1):
        delimiter = max(_DELIMITERS, key=line.count)
        names = line.split(delimiter) if delimiter in line else line.split()
        names = [name.strip().strip('"') for name in names]
        fields = pd.Series(names, dtype="str").str.replace(_DECIMAL_COMMA, r"\1.\2", regex=True)
        has_number = pd.to_numeric(fields, errors="coerce").notna().any()
        if not is_first and len(names) > 1 and any(names) and not has_number:
            found[number] = names
        is_first = is_first and not line.strip()
    return found


def _rows(text: str, delimiter: str) -> tuple[list[str], list[list[str]], list[int]]:
    """Part a table's text into heading, rows and the number of each row's first line."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    rows, lines, line = [], [], 1
    for row in reader:
        row = [field.strip() for field in row]
        if any(row):
            rows.append(row)
            lines.append(line)
        line = reader.line_num + 1
    if not rows:
        raise csv.Error("it holds nothing but delimiters")
    width = len(rows[0])
    for row, line in zip(rows, lines, strict=True):
        if any(row[width:]):
            raise csv.Error(f"line {line} has {len(row)} fields, the heading has {width}")
    return rows[0], [(row + [""] * width)[:width] for row in rows[1:]], lines[1:]


def _decoded(content: bytes) -> str:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")
