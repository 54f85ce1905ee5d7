"""Tables of H3 hexagons: which cells touch, and what lies under each cell of a raster grid."""

import difflib
from functools import lru_cache
from itertools import repeat
from pathlib import Path
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import rioxarray  # noqa: F401  (adds the .rio accessor)
import xarray as xr
from h3.api import basic_int as h3

KEY = "H3_Address"  # column of a table that holds the H3 cells, as unsigned 64-bit numbers
LABEL = {b"role": b"label"}  # metadata of columns that are labels, or made from one
CHUNK = 1 << 18  # cells at a time: what is in work stays small
KEPT = 512 << 20  # bytes of looked-up grids that are kept for the next column
_KEPT: dict[tuple, np.ndarray] = {}
_LOCK = Lock()


def on_grid(path: Path, column: str, cells: xr.DataArray) -> np.ndarray:
    """Put a column of numbers on a raster grid: that of the hexagon under each cell's centre.

    The H3 cell under each centre is looked up once for a table and a grid, whatever the column.

    Parameters
    ----------
    path : Path
        Parquet file with a column `H3_Address` (uint64, one resolution, no cell twice).
    column : str
        Numbers or booleans.
    cells : DataArray (y, x)
        The grid: any CRS, projected or geographic; only its geometry is used.

    Returns
    -------
    array (y, x)
        float32, booleans as 0 or 1, NaN where there is no hexagon or no value.

    Raises
    ------
    ValueError
        If the table has no such column, the column holds text, is a label or made from one, or the
        hexagons differ in resolution or occur twice.
    """
    if not is_number(check_column(path, column).type):
        raise ValueError(f"{path}: {column!r} holds text; use kind: categorical")
    return spread(read_column(path, column), rows_on_grid(path, cells))


def classes_on_grid(path: Path, column: str, cells: xr.DataArray) -> tuple[np.ndarray, list]:
    """Put a column of classes on a raster grid.

    Parameters
    ----------
    path, cells
        As for `on_grid`.
    column : str
        Text or whole numbers.

    Returns
    -------
    array (y, x)
        int32, a position in the list; -1 where there is no hexagon or no class.
    list
        The classes, sorted.

    Raises
    ------
    ValueError
        As `on_grid`, but not for text.
    """
    check_column(path, column)
    codes, found = read_codes(path, column)
    return spread(codes, rows_on_grid(path, cells), nothing=-1), found


def spread(values: np.ndarray, rows: np.ndarray, *, nothing: float = np.nan) -> np.ndarray:
    """Pick `values` (n,) by `rows` (y, x); `nothing` where a row is -1."""
    if not len(values):
        return np.full(rows.shape, nothing, values.dtype)
    picked = values[rows]
    picked[rows < 0] = nothing
    return picked


def is_number(kind: pa.DataType) -> bool:
    """Whether a column of this type holds numbers or booleans, else it is taken for text."""
    types = pa.types
    return types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind)


def classes(path: Path, column: str) -> list:
    """Return the classes of a column of text or whole numbers, sorted.

    Raises
    ------
    ValueError
        As `on_grid`; also if the column holds fractions, which are no classes.
    """
    kind = check_column(path, column).type
    if pa.types.is_floating(kind):
        raise ValueError(f"{path}: column {column!r} holds numbers ({kind}), not classes")
    return read_codes(path, column)[1]


def check_column(path: Path, column: str) -> pa.Field:
    """Return a column's field if it may be evidence.

    Raises
    ------
    ValueError
        If the table has no such column or no cells, or the column is a label.
    """
    schema = pq.read_schema(path)
    for name in (KEY, column):
        if name not in schema.names:
            near = difflib.get_close_matches(name, schema.names, n=3, cutoff=0.5)
            hint = f"nearest: {', '.join(near)}" if near else f"it has {', '.join(schema.names)}"
            raise ValueError(f"{path} has no column {name!r}; {hint}")
    if schema.field(KEY).type != pa.uint64():
        kind = schema.field(KEY).type
        raise ValueError(f"{path}: {KEY} is {kind}; write the cells as unsigned 64-bit numbers")
    field = schema.field(column)
    if (field.metadata or {}).items() >= LABEL.items():
        raise ValueError(
            f"{path}: column {column!r} is a label or made from one; it cannot be evidence"
        )
    return field


def read_column(path: Path, column: str) -> np.ndarray:
    """Read a column (n,) of numbers or booleans as float32, NaN where missing or infinite."""
    values = pq.read_table(path, columns=[column]).column(0)
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.uint8())
    numbers = values.to_numpy().astype("float32")
    return np.where(np.isinf(numbers), np.float32(np.nan), numbers)


def read_codes(path: Path, column: str) -> tuple[np.ndarray, list]:
    """Read a column as codes (n,), int32 and -1 where missing, and the sorted classes they mean."""
    values = pq.read_table(path, columns=[column]).column(0)
    if not pa.types.is_dictionary(values.type):
        values = values.dictionary_encode()
    values = values.unify_dictionaries().combine_chunks()
    codes = values.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype("int32")
    names = values.dictionary.to_pylist()
    found = sorted({names[k] for k in np.unique(codes[codes >= 0])})
    rank = {name: k for k, name in enumerate(found)}
    return np.array([*(rank.get(name, -1) for name in names), -1], "int32")[codes], found


def rows_on_grid(path: Path, cells: xr.DataArray) -> np.ndarray:
    """Return the row of a table's hexagon under each centre of a grid: int32 (y, x), -1 for none.

    What was found is kept, up to `KEPT` bytes in all, until the file changes.

    Raises
    ------
    ValueError
        As `on_grid`.
    """
    stamp, crs = Path(path).stat(), cells.rio.crs.to_wkt()
    # of the coordinates, not of the transform, which a part of a grid inherits unchanged
    x, y = (np.asarray(cells[axis].values, "float64") for axis in ("x", "y"))
    table = str(path), stamp.st_ino, stamp.st_mtime_ns, stamp.st_size
    key = (*table, crs, x.tobytes(), y.tobytes())
    rows = _KEPT.get(key)
    if rows is None:
        rows = _look_up(_ranked(*table), _under(x, y, crs, _ranked(*table)[0], str(path)))
        rows.flags.writeable = False  # others get this very array
        with _LOCK:
            while _KEPT and rows.nbytes + sum(kept.nbytes for kept in _KEPT.values()) > KEPT:
                del _KEPT[next(iter(_KEPT))]
            _KEPT[key] = rows
    return rows


@lru_cache(maxsize=2)
def _ranked(path: str, *_version: int) -> tuple[np.ndarray, np.ndarray]:
    cells = pq.read_table(path, columns=[KEY]).column(0)
    if cells.null_count:
        raise ValueError(f"{path}: {cells.null_count} rows have no {KEY}; drop them")
    return _rank(cells.to_numpy(), path)


def _under(x: np.ndarray, y: np.ndarray, crs: str, table: np.ndarray, what: str) -> np.ndarray:
    """Return the cell (y, x) of the table's resolution under each point of a grid."""
    under = np.zeros((len(y), len(x)), "uint64")
    if len(table):
        resolution = _resolution(table, what)
        to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        step = max(CHUNK // len(x), 1)
        for start in range(0, len(y), step):
            points = to_degrees.transform(*np.meshgrid(x, y[start : start + step]))
            under[start : start + step] = cells_at(*points, resolution)
    return under


def _resolution(table: np.ndarray, what: str) -> int:
    found = np.unique((table >> np.uint64(52)) & np.uint64(15))
    if len(found) > 1:
        raise ValueError(f"{what} has hexagons of resolutions {found.tolist()}; keep one")
    return int(found[0])


def cells_at(longitude: np.ndarray, latitude: np.ndarray, resolution: int) -> np.ndarray:
    """Return the H3 cell at each point (degrees), uint64 of the same shape; 0 where not finite."""
    cells = np.zeros(longitude.shape, "uint64")
    known = np.isfinite(longitude) & np.isfinite(latitude)
    points = latitude[known].tolist(), longitude[known].tolist(), repeat(resolution)
    cells[known] = np.fromiter(map(h3.latlng_to_cell, *points), "uint64", known.sum())
    return cells


def find(wanted: np.ndarray, table: np.ndarray, *, what: str = "the table") -> np.ndarray:
    """Return the row of each wanted cell in a table of cells (n,): int32, -1 where it is not there.

    Raises
    ------
    ValueError
        If the table holds a cell twice.
    """
    return _look_up(_rank(table, what), wanted)


def _rank(table: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a table's cells in order, and the row of each."""
    order = np.argsort(table).astype("int32")
    ranked = table[order]
    twice = np.flatnonzero(ranked[1:] == ranked[:-1])
    if len(twice):
        raise ValueError(f"{what} holds hexagon {int(ranked[twice[0]]):x} twice; keep one row each")
    return ranked, order


def _look_up(table: tuple[np.ndarray, np.ndarray], wanted: np.ndarray) -> np.ndarray:
    (ranked, order), rows = table, np.full(wanted.shape, -1, "int32")
    flat, out = wanted.reshape(-1), rows.reshape(-1)
    for start in range(0, len(flat) if len(ranked) else 0, CHUNK):
        part = flat[start : start + CHUNK]
        place = np.searchsorted(ranked, part)
        place[place == len(ranked)] = 0
        out[start : start + CHUNK] = np.where(ranked[place] == part, order[place], -1)
    return rows


def neighbours(cells: np.ndarray) -> np.ndarray:
    """Return the cells that touch each H3 cell: uint64 (n, 6); 0 where a pentagon has no sixth.

    Inside one of the world's 122 base cells a step to a neighbour is an addition, digit by digit,
    as of numbers in base 7, so that millions are stepped at once; only cells at the rim of a base
    cell, and those of the 12 base cells with a pentagon, are left to the H3 library.

    Parameters
    ----------
    cells : array (n,)
        uint64, valid H3 cells of one resolution.

    Raises
    ------
    ValueError
        If the resolutions differ.
    """
    touching = np.empty((len(cells), 6), "uint64")
    for start in range(0, len(cells), CHUNK):
        touching[start : start + CHUNK] = _neighbours(cells[start : start + CHUNK])
    return touching


def _neighbours(cells: np.ndarray) -> np.ndarray:
    if not len(cells):
        return np.empty((0, 6), "uint64")
    resolution = _resolution(cells, "the list of cells")
    touching = np.empty((len(cells), 6), "uint64")
    base = ((cells >> np.uint64(45)) & np.uint64(127)).astype(int)
    hard = np.isin(base, [h3.get_base_cell_number(cell) for cell in h3.get_pentagons(0)])
    for k in range(6):
        touching[:, k], carried = _step(cells, k + 1, resolution)
        hard[carried] = True
    for row in np.flatnonzero(hard):
        cell = int(cells[row])
        around = [other for other in h3.grid_disk(cell, 1) if other != cell]
        touching[row] = around + [0] * (6 - len(around))
    return touching


def _step(cells: np.ndarray, direction: int, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """Step each cell (n,) in one of six directions; also which steps leave the base cell."""
    stepped, at = cells.copy(), np.arange(len(cells))
    carry = np.full(len(cells), direction)
    for level in range(resolution, 0, -1):
        digits, carries = _sums()[level % 2]
        shift = np.uint64(3 * (15 - level))
        now = stepped[at]
        place = 7 * carry + ((now >> shift) & np.uint64(7)).astype(int)
        stepped[at] = (now & ~(np.uint64(7) << shift)) | (digits[place] << shift)
        on = carries[place] != 0
        at, carry = at[on], carries[place][on]
    return stepped, at


@lru_cache(maxsize=1)
def _sums() -> list[tuple[np.ndarray, np.ndarray]]:
    """Add two H3 digits at even and at odd levels: new digit and carry, at 7 * first + second.

    A digit's bits are steps along three axes 120 degrees apart, and a parent's unit step is 3
    steps of the child along its axis and 1 along the next (at odd levels: the one before).

    Source: H3 documentation, "Coordinate systems" and "Indexing": aperture 7, turned to and fro.
    """
    units = np.array([[digit >> 2 & 1, digit >> 1 & 1, digit & 1] for digit in range(7)])
    units = units[:, :2] - units[:, 2:]  # 1 step along all three axes leads back
    tables = []
    for parent in ([[3, 1], [-1, 2]], [[2, -1], [1, 3]]):
        tables.append(_carry(units, units @ np.array(parent)))
    return tables


def _carry(units: np.ndarray, parents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    total = units[:, None] + units[None]
    fits = (total[:, :, None, None] == parents[:, None] + units[None]).all(-1)
    _, _, carry, digit = np.nonzero(fits)
    return digit.astype("uint64"), carry
