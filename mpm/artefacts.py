"""Where every artefact of a study lies, written so that no reader sees half a file."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pandas as pd
from PIL import Image


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
    what lay at `path` before stays as it was.

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
    # the suffix stays last: writers such as GDAL and matplotlib choose the format by it
    fresh = path.with_name(f"{path.stem}.tmp-{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield fresh
        if not fresh.exists():
            raise FileNotFoundError(f"nothing was written for {path}")
        _replace(fresh, path)
    finally:
        _remove(fresh)


def _replace(fresh: Path, path: Path) -> None:
    if not path.is_dir():
        fresh.replace(path)
        return
    # a folder cannot be replaced in one step: move the old one aside first
    old = path.with_name(f"{path.name}.tmp-old-{uuid.uuid4().hex[:8]}")
    path.replace(old)
    fresh.replace(path)
    shutil.rmtree(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, content: dict | list) -> None:
    """Write JSON atomically, keys in the order given, with a closing newline."""
    with atomic(path) as fresh:
        fresh.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict | list:
    """Read a JSON file.

    Raises
    ------
    ValueError
        If the file is not valid JSON; the message names it.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}); delete it and make it again"
        ) from error


def write_table(rows: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet, atomically."""
    with atomic(path) as fresh:
        rows.to_parquet(fresh, index=False)


def fewer_colours(png: BinaryIO) -> Image.Image:
    """Read a picture in 256 colours, spread over all that occur: half the size of the original."""
    picture = Image.open(png).convert("RGB")
    return picture.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)


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
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} is missing; run notebook {notebook} of this study first")
    return Path(path)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, as 64 hexadecimal digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def quiet() -> bool:
    """Whether progress bars are off, as the runner and the tests want it (`MPM_RUN=1`)."""
    return os.environ.get("MPM_RUN") == "1"
