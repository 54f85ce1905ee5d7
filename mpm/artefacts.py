"""Where every artefact of a study lies, written so that no reader sees half a file."""

import ctypes
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import psutil
import pyarrow.parquet
from PIL import Image

_WRITING: set[Path] = set()  # temporary paths that this process writes now
_MACHINE = re.sub(r"\W", "", platform.node()) or "here"
_DAY_S = 86_400
SHAPEFILE_PARTS = (".shx", ".dbf", ".prj", ".cpg")


COLOURS = 128  # of a picture: with 256, which shows fewer steps, files are 10 to 25 % larger


def home() -> Path:
    """Return the compendium's root folder (`MPM_HOME`, or the folder that holds this package)."""
    return Path(os.environ.get("MPM_HOME") or Path(__file__).parents[1]).resolve()


def processed(study_name: str) -> Path:
    """Return the folder of a study's computed artefacts; it need not exist yet."""
    root = os.environ.get("MPM_PROCESSED") or home() / "data" / "processed"
    return Path(root) / study_name


def figures(study_name: str) -> Path:
    """Return the folder of a study's figures; it need not exist yet."""
    return Path(os.environ.get("MPM_FIGURES") or home() / "figures") / study_name


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Write a file or folder beside its place, then rename it into place.

    Yields the temporary path, which the caller creates as a file or a folder. If the block raises,
    what lay at `path` before stays as it was. If the process is killed, readers see the old
    artefact or the new one; what it left beside them is removed by the next write to `path`.

    Parameters
    ----------
    path : Path
        Final place. Its parent is created.

    Raises
    ------
    FileNotFoundError
        If the block wrote nothing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    recover(path)
    for left in _beside(path):
        if _abandoned(left):
            _remove(left)
    name = f"{path.stem}.tmp-{_MACHINE}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    # the suffix stays last: writers such as GDAL and matplotlib choose the format by it
    fresh = path.with_name(name + path.suffix)
    _WRITING.add(fresh)
    try:
        yield fresh
        if not fresh.exists():
            raise FileNotFoundError(f"nothing was written for {path}")
        _replace(fresh, path)
    except BaseException:
        for _ in range(50):  # threads of the writer that failed may add files for a while
            if not fresh.is_dir():
                break
            _remove(fresh)
            time.sleep(0.1)
        raise
    finally:
        _remove(fresh)
        _WRITING.discard(fresh)


def recover(path: Path) -> None:
    """Put a folder back that a killed process had set aside to replace it.

    Where two folders cannot be swapped in one step, `path` is missing for an instant while it is
    replaced. If its writer still runs, this waits for it.
    """
    for _ in range(200):
        aside = [] if path.exists() else _beside(path, aside=True)
        if not aside:
            return
        for place in filter(_abandoned, aside):
            with suppress(OSError):  # another reader was faster
                place.replace(path)
        time.sleep(0.01)


_NAME = re.compile(r"\.tmp-(?P<machine>\w+)-(?P<pid>\d+)-[0-9a-f]{8}(?P<aside>-aside)?")


def _beside(path: Path, *, aside: bool = False) -> list[Path]:
    """Temporary paths of all writers of `path`, or only the artefacts that they set aside."""
    if not path.parent.is_dir():
        return []
    name = re.compile(f"{re.escape(path.stem)}{_NAME.pattern}{re.escape(path.suffix)}")
    found = {place: name.fullmatch(place.name) for place in path.parent.iterdir()}
    return [place for place, match in found.items() if match and (match["aside"] or not aside)]


def _abandoned(place: Path) -> bool:
    """Whether nobody writes a temporary path any more."""
    writer = _NAME.search(place.name)
    assert writer is not None  # `_beside` finds no others
    try:
        if writer["machine"] != _MACHINE:  # whether it still runs there cannot be asked
            files = [place, *place.rglob("*")]
            return max(file.stat().st_mtime for file in files) < time.time() - _DAY_S
        if int(writer["pid"]) == os.getpid():
            return place.with_name(place.name.replace("-aside", "")) not in _WRITING
        process = psutil.Process(int(writer["pid"]))
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        # a process younger than the file is another one with the same number (60 s: clocks)
        return process.create_time() > place.stat().st_mtime + 60
    except psutil.NoSuchProcess:
        return True
    except OSError:  # gone meanwhile
        return False


def _replace(fresh: Path, path: Path) -> None:
    """Move `fresh` to `path`; an old folder ends where `fresh` was."""
    if not path.exists() or not (path.is_dir() or fresh.is_dir()):
        fresh.replace(path)
    elif not _swap(fresh, path):
        aside = fresh.with_name(f"{fresh.stem}-aside{fresh.suffix}")
        path.replace(aside)
        fresh.replace(path)
        # only whole folders are called aside: it is renamed before it is removed
        aside.replace(fresh)


def _swap(one: Path, other: Path) -> bool:
    """Exchange two paths in one step; False where the system cannot (Linux can)."""
    if sys.platform != "linux":
        return False
    swap = getattr(ctypes.CDLL(None), "renameat2", None)
    if swap is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of renameat2(2)
    return swap(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, content: dict | list) -> None:
    """Write JSON atomically, keys in the order given, with a closing newline."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: Path, content: str) -> None:
    """Write text as UTF-8, atomically."""
    with atomic(path) as fresh:
        fresh.write_text(content, encoding="utf-8", newline="\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    ValueError
        If the file is not valid JSON; the message names it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # ValueError: no JSON, or no text
        raise ValueError(
            f"{path} is not valid JSON ({error}); delete it and make it again"
        ) from error


def read_facts(path: Path, *keys: str) -> dict:
    """Read a JSON file that this package wrote, with at least some keys.

    Raises
    ------
    ValueError
        If the file is not valid JSON or lacks a key; the message names it.
    """
    content = read_json(path)
    lacking = [key for key in keys if not isinstance(content, dict) or key not in content]
    if lacking or not isinstance(content, dict):
        raise ValueError(
            f"{path} lacks {', '.join(lacking) or 'keys'}: it is damaged or of another version of "
            "mpm; make it again"
        )
    return content


def write_table(rows: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet, atomically."""
    with atomic(path) as fresh:
        rows.to_parquet(fresh, index=False)


def read_table(path: Path, notebook: str) -> pd.DataFrame:
    """Read a table written by `write_table`.

    Parameters
    ----------
    path : Path
    notebook : str
        The notebook that writes it, for messages.

    Raises
    ------
    FileNotFoundError
        If it is missing.
    ValueError
        If it is damaged; the message names it.
    """
    with _undamaged(path, notebook):
        return pd.read_parquet(require(path, notebook))


def read_tables(
    places: Mapping[Path, str],
    *,
    columns: Sequence[str] | None = None,
    only: Mapping[str, str] | None = None,
    categories: Sequence[str] = (),
) -> pd.DataFrame:
    """Read tables of the same columns one below the other, without a second copy of them.

    Parameters
    ----------
    places : mapping of str
        Path to the notebook that writes it, as for `read_table`.
    columns : sequence of str, optional
        Those to read, instead of all.
    only : mapping of str, optional
        Columns and the value that they have in the rows to read.
    categories : sequence of str
        Columns of few different texts, which are read as categories: as text they would fill a
        third of the memory of millions of rows.

    Returns
    -------
    DataFrame
        As `pandas.concat` would make it of each, numbered from 0.

    Raises
    ------
    FileNotFoundError, ValueError
        As of `read_table`.
    """
    tables = []
    filters = [(column, "==", value) for column, value in (only or {}).items()] or None
    for path, notebook in places.items():
        with _undamaged(path, notebook):
            tables.append(
                pyarrow.parquet.read_table(
                    require(path, notebook),
                    columns=columns,
                    filters=filters,
                    read_dictionary=list(categories),
                )
            )
    joined = pyarrow.concat_tables(tables, promote_options="permissive").unify_dictionaries()
    del tables  # else every column is held twice until all are converted
    rows = joined.to_pandas(split_blocks=True, self_destruct=True)
    del joined
    pyarrow.default_memory_pool().release_unused()
    return rows


@contextmanager
def _undamaged(path: Path, notebook: str) -> Iterator[None]:
    """Say which table is damaged and what makes it again."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} is damaged ({error}); run notebook {notebook} again") from error


def fewer_colours(png: BinaryIO) -> Image.Image:
    """Read a picture in 128 colours, spread over all that occur: half the size of the original.

    Means of the colours they stand for (k-means), else greys get a tint and pale classes merge.
    """
    return quantize(Image.open(png).convert("RGB"), COLOURS)


def quantize(picture: Image.Image, colours: int) -> Image.Image:
    """Draw a picture in few colours, without patterns of dots in between."""
    method, dither = Image.Quantize.MAXCOVERAGE, Image.Dither.NONE
    return picture.quantize(colours, method=method, kmeans=2, dither=dither)


def require(path: Path, notebook: str) -> Path:
    """Return `path` if it exists, else say which notebook writes it.

    Parameters
    ----------
    path : Path
        An artefact of an earlier notebook.
    notebook : str
        That notebook's name, e.g. "01_data_preparation".

    Raises
    ------
    FileNotFoundError
        If the artefact is missing.
    """
    path = Path(path)
    for place in (path.parent, path):
        recover(place)
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; run notebook {notebook} of this study first")
    return path


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as 64 hexadecimal digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def threads() -> int:
    """Return how many CPU threads train a model: `MPM_THREADS`, or one a processor."""
    return int(os.environ.get("MPM_THREADS") or os.cpu_count() or 1)


def quiet() -> bool:
    """Whether progress bars are off, as the runner and the tests want it (`MPM_RUN=1`)."""
    return os.environ.get("MPM_RUN") == "1"


def parts(path: Path) -> list[Path]:
    """List the files that make up one data set: a shapefile has several, a folder what it holds."""
    if path.is_dir():
        return [part for part in path.rglob("*") if part.is_file()]
    if path.suffix.lower() != ".shp":
        return [path]
    beside = (part for part in path.parent.iterdir() if part.stem == path.stem)
    return [path, *sorted(part for part in beside if part.suffix.lower() in SHAPEFILE_PARTS)]
