"""The published table of the Lawley et al. 2022 data cube: from its CSV to Parquet, in a stream."""

import csv
import io
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import reduce
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from mpm import artefacts, hexagons
from mpm.lawley_facts import TEXT, column_type, columns, facts, merged, near, schema

BLOCK = 16 << 20  # bytes of CSV that are parsed at a time
WORKERS = 2  # blocks parsed at the same time, while a third is written
ROWS = 1 << 17  # rows of a row group, at least; at most those of one block more
MISSING = ["", "NA", "NaN", "nan"]
_RAW_TEXT = pa.dictionary(pa.int32(), pa.binary())
_HEX = np.full(256, 255, "uint8")
_HEX[np.frombuffer(b"0123456789abcdefABCDEF", "uint8")] = [*range(16), *range(10, 16)]


def write_parquet(path: Path, out: Path) -> int:
    """Convert the published CSV to Parquet, block by block: memory does not grow with the rows.

    The geometry is left out (it is in the H3 address); "Present" and "Absent" become booleans,
    text becomes classes, and columns are added: lithology and period with classes merged, the
    three combined dictionaries, and a label a deposit type, all as `data/lawley2022.json` says.

    Parameters
    ----------
    path : Path
        The CSV.
    out : Path
        The Parquet file, written atomically.

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    FileNotFoundError
        If there is no such CSV.
    ValueError
        If a column is missing or unfamiliar, or a row cannot be read; names line and column.
    """
    size, rows, waiting = path.stat().st_size, 0, []
    texts = [field.name for field in schema() if field.type == TEXT]
    # None: tqdm looks whether a person's terminal is there
    shown: dict[str, Any] = {
        "unit": "B",
        "unit_scale": True,
        "leave": False,
        "disable": artefacts.quiet() or None,
    }
    with (
        artefacts.atomic(out) as fresh,
        pq.ParquetWriter(fresh, schema(), compression="zstd", use_dictionary=texts) as writer,
        tqdm(total=size, desc=path.name, **shown) as bar,
    ):
        for table, read in read_tables(path):
            waiting.append(table)
            rows += len(table)
            if sum(map(len, waiting)) >= ROWS:
                _write_group(writer, waiting)
                waiting = []
            bar.update(read)
        if rows == 0:
            raise ValueError(f"{path} has a header and no rows")
        _write_group(writer, waiting)
    return rows


def _write_group(writer: pq.ParquetWriter, tables: list[pa.Table]) -> None:
    if tables:
        group = pa.concat_tables(tables).unify_dictionaries()
        writer.write_table(group, row_group_size=len(group))


def read_tables(path: Path) -> Iterator[tuple[pa.Table, int]]:
    """Read the CSV block by block, in order: tables of `schema`, and the bytes of each block."""
    names = read_header(path)
    waiting: deque[tuple[Future[pa.Table], int]] = deque()
    with path.open("rb") as file, ThreadPoolExecutor(WORKERS) as pool:
        line = 1 + file.readline().count(b"\n")
        for block in _blocks(file):
            waiting.append((pool.submit(parse, block, names, path, line), len(block)))
            line += block.count(b"\n")
            while len(waiting) > WORKERS:
                table, read = waiting.popleft()
                yield table.result(), read
        for table, read in waiting:
            yield table.result(), read


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block + file.readline()  # whole lines


def read_header(path: Path) -> list[str]:
    """Read the column names; a byte order mark before the first is taken away.

    Raises
    ------
    ValueError
        If a column is missing, unfamiliar or there twice; the message lists the nearest names.
    """
    with path.open("rb") as file:
        line = file.readline(1 << 20).decode("latin-1")  # of whatever file it is
    names = next(csv.reader([line])) or [""]
    # in latin-1 the mark is three letters, six if the file was saved so and read as UTF-8, and the
    # quotes behind it are part of the name
    names[0] = names[0].removeprefix("Ã¯Â»Â¿").removeprefix("ï»¿").strip('"')
    missing = [name for name in columns() if name not in names]
    if len(missing) == len(columns()):
        raise ValueError(f"{path} is not the data cube: no column of it is in {line[:60]!r} ...")
    problems = [f"{name!r} is missing{near(name, names)}" for name in missing]
    strange = [name for name in names if name not in columns()]
    problems += [f"{name!r} is unfamiliar{near(name, columns())}" for name in strange]
    problems += [f"{name!r} is there twice" for name in sorted(set(names)) if names.count(name) > 1]
    if problems:
        raise ValueError(f"{path}: column {'; column '.join(problems)}")
    return names


def parse(block: bytes, names: list[str], path: Path, line: int) -> pa.Table:
    """Parse whole lines of the CSV into a table of `schema`.

    Parameters
    ----------
    block : bytes
    names : list of str
        The columns, in the file's order.
    path, line
        The file and the number of the block's first line, for the message.

    Raises
    ------
    ValueError
        If a row cannot be read; names its line and column.
    """
    types = {name: column_type(name) for name in names} | {hexagons.KEY: pa.binary()}
    types = {name: _RAW_TEXT if kind == TEXT else kind for name, kind in types.items()}
    try:
        raw = pa.csv.read_csv(
            pa.BufferReader(block),
            pa.csv.ReadOptions(column_names=names, use_threads=False, block_size=len(block) + 1),
            convert_options=pa.csv.ConvertOptions(
                column_types=types,
                include_columns=[name for name in names if columns()[name]["kind"] != "dropped"],
                null_values=MISSING,
                strings_can_be_null=True,
                true_values=["Present"],
                false_values=["Absent"],
            ),
        )
        return _convert({name: raw[name].combine_chunks() for name in raw.column_names})
    except (ValueError, KeyError) as error:  # of numbers and booleans; of classes
        blamed = _blame(block, names, path, line)
        raise blamed or ValueError(f"{path}, from line {line}: {error}") from error


def _convert(made: dict[str, pa.Array]) -> pa.Table:
    made[hexagons.KEY] = _addresses(made[hexagons.KEY])
    for name in made:
        if made[name].type == _RAW_TEXT:
            made[name] = _recode(made[name], _decode)
    for name, (origin, table) in merged().items():
        made[name] = _recode(made[origin], table.__getitem__)
    for name, keywords in facts()["dictionaries"]["table"].items():
        made[name] = reduce(pc.or_kleene, [made[word] for word in keywords])
    for name, known in facts()["labels"]["table"].items():
        made[f"Label_{name}"] = reduce(pc.or_kleene, [made[word] for word in known])
    return pa.Table.from_arrays([made[name] for name in schema().names], schema=schema())


def _decode(text: bytes) -> str:
    # the file mixes both encodings, so that each text is asked which one it is in
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _recode(array: pa.DictionaryArray, change: Callable[[Any], str | None]) -> pa.DictionaryArray:
    """Change the classes of an array; classes that become one share a code."""
    changed = [change(text) for text in array.dictionary.to_pylist()]
    found = list(dict.fromkeys(changed))
    codes = pa.array([found.index(text) for text in changed], pa.int32())
    return pa.DictionaryArray.from_arrays(codes.take(array.indices), pa.array(found, pa.string()))


def _addresses(texts: pa.Array) -> pa.Array:
    """Read H3 addresses of 15 hexadecimal digits as numbers."""
    if texts.null_count or pc.any(pc.not_equal(pc.binary_length(texts), 15)).as_py():
        raise ValueError("an H3 address is not of 15 digits")
    digits = _HEX[np.frombuffer(b"".join(texts.to_pylist()), "uint8").reshape(-1, 15)]
    cells = np.zeros(len(digits), "uint64")
    for column in digits.T:
        cells = cells << np.uint64(4) | column
    resolution = np.uint64(facts()["cube"]["resolution"])
    unused = np.uint64((1 << 3 * (15 - int(resolution))) - 1)  # digits finer than the resolution
    ours = (cells >> np.uint64(52) == np.uint64(1 << 7) | resolution) & (cells & unused == unused)
    if (digits > 15).any() or not ours.all():
        raise ValueError("an H3 address is none of the cube's resolution")
    return pa.array(cells)


def _blame(block: bytes, names: list[str], path: Path, line: int) -> ValueError | None:
    """Find the first cell that cannot be read, slowly."""
    rows = csv.reader(io.StringIO(block.decode("latin-1"), newline=""))
    for row in rows:
        at = f"{path}, line {line + rows.line_num - 1}"
        if row and len(row) != len(names):
            return ValueError(
                f"{at}: {len(row)} values instead of {len(names)}; is a comma or quote missing?"
            )
        for name, value in zip(names, row, strict=False):
            if wrong := _wrong(name, value):
                return ValueError(f"{at}, column {name!r}: {value!r} is {wrong}")
    return None


def _wrong(name: str, value: str) -> str | None:
    if name == hexagons.KEY:
        try:
            _addresses(pa.array([value.encode("latin-1")]))
        except ValueError:
            return f"no H3 cell of resolution {facts()['cube']['resolution']}"
    if value in MISSING:
        return None
    kind, table = column_type(name), merged().get(f"{name}_Merged", ("", {}))[1]
    if kind == pa.bool_() and value not in ("Present", "Absent"):
        return 'neither "Present" nor "Absent"'
    if kind in (pa.int8(), pa.float32(), pa.float64()) and not _is_number(value):
        return "not a number"
    if table and value not in table:
        return f"an unfamiliar class{near(value, table)}"
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
