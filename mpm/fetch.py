"""Fill a study's data folder: generated, downloaded and checked, or the user's own files."""

import csv
import os
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin

import pooch
from tqdm import tqdm

from mpm import artefacts
from mpm.study import Study

if TYPE_CHECKING:
    import requests

HOST = "https://raw.githubusercontent.com"
DEMO_SEED = 7


@dataclass(frozen=True)
class Entry:
    """One row of `data/registry.csv`: a public file at a fixed commit.

    Attributes
    ----------
    study : str
        Name of the study that uses it.
    repository, commit, path : str
        Where it lies: "owner/name", 40 hexadecimal digits, path inside the repository.
    bytes : int
        Size.
    sha256 : str
        64 hexadecimal digits.
    licence : str
        As stated there.
    """

    study: str
    repository: str
    commit: str
    path: str
    bytes: int
    sha256: str
    licence: str

    @property
    def name(self) -> str:
        """File name in the study's data folder, which is flat."""
        return PurePosixPath(self.path).name

    @property
    def place(self) -> str:
        """Path below a mirror's folder."""
        return f"{self.repository}/{self.commit}/{self.path}"

    @property
    def url(self) -> str:
        """Public address."""
        return f"{HOST}/{quote(self.place)}"


def fetch(study: Study, *, progress: bool = True, registry: Path | None = None) -> list[Path]:
    """Fill `study.raw` as the study's `fetch` entry says; what is there and right stays.

    Parameters
    ----------
    study : Study
        "demo" studies are generated, "registry" studies downloaded (or copied from the folder
        that `MPM_MIRROR` names) and checked by SHA-256, "none" studies only looked at.
    progress : bool
        Show a bar while downloading; never shown where no person is watching.
    registry : Path, optional
        Table of public files; by default `data/registry.csv`.

    Returns
    -------
    list of Path
        Every file that the study names, as `input_files` returns them.

    Raises
    ------
    FileNotFoundError
        If the mirror lacks a file, or the study names a file that does not come.
    ConnectionError
        If a file cannot be downloaded.
    ValueError
        If what came has a wrong checksum; an earlier copy is left as it was.
    FileExistsError
        If a demo would replace a folder that holds other files.
    """
    if study.fetch == "demo":
        _generate(study)
    elif study.fetch == "registry":
        registry = registry or artefacts.home() / "data" / "registry.csv"
        _download(read_registry(registry, study.name), study.raw, progress=progress)
        _convert(study)
        return _present(study, f"{registry} brings no such file; correct `file` in {study.path}")
    return input_files(study)


def input_files(study: Study) -> list[Path]:
    """Return every file the study names, in every region, with the parts of shapefiles, sorted.

    Raises
    ------
    FileNotFoundError
        If one is missing; the message says which layer needs it and how to get it.
    """
    return _present(study, study.remedy)


def input_checksums(study: Study) -> dict[str, str]:
    """Return the SHA-256 of every file the study names, by path relative to `study.raw`.

    Files outside `study.raw` keep their full path.

    Raises
    ------
    FileNotFoundError
        If one is missing.
    """
    checksums = {}
    for path in input_files(study):
        inside = path.is_relative_to(study.raw)
        key = path.relative_to(study.raw) if inside else path
        checksums[key.as_posix()] = artefacts.sha256(path)
    return checksums


def read_registry(path: Path, study_name: str) -> list[Entry]:
    """Read the rows of one study from a registry of public files.

    Raises
    ------
    ValueError
        If a column is missing, the study has no rows, one of them could name another place than a
        file at a fixed commit (or another checksum than SHA-256), or two of its files share a name.
    """
    with Path(path).open(newline="", encoding="utf-8") as stream:
        rows = csv.DictReader(stream)
        columns = list(Entry.__dataclass_fields__)
        missing = [column for column in columns if column not in (rows.fieldnames or ())]
        if missing:
            raise ValueError(f"{path} has no column {', '.join(missing)}; add it")
        chosen: list[dict[str, Any]]
        chosen = [{c: row[c] for c in columns} for row in rows if row["study"] == study_name]
    for row in chosen:
        _check_row(row, path)
    entries = [Entry(**row | {"bytes": int(row["bytes"])}) for row in chosen]
    if not entries:
        raise ValueError(
            f"{path} lists no file of study {study_name!r}; add rows, or `fetch: none`"
        )
    # some file systems do not tell upper from lower case
    counts = Counter(entry.name.lower() for entry in entries)
    twice = [entry.path for entry in entries if counts[entry.name.lower()] > 1]
    if twice:
        raise ValueError(f"{path}: files of {study_name!r} share a name: {', '.join(twice)}")
    return entries


# what a row must look like, so that it can name nothing else than a public file
_RULES = {
    "repository": (r"\w[\w.-]*/\w[\w.-]*", "owner/name"),
    "commit": (r"[0-9a-f]{40}", "the 40 digits of a commit"),
    "path": (r"(?!(.*/)?\.{0,2}(/|$))[^\\\x00-\x1f]+", "a path inside the repository"),
    "bytes": (r"[0-9]+", "a number of bytes"),
    "sha256": (r"[0-9a-f]{64}", "the 64 digits of a SHA-256"),
}


def _check_row(row: dict[str, str], path: Path) -> None:
    for column, (pattern, wanted) in _RULES.items():
        if not re.fullmatch(pattern, row[column] or "", re.ASCII):
            raise ValueError(
                f"{path}: {column} {row[column]!r} of {row['path'] or 'a row'} is not {wanted}; "
                "correct it"
            )


def _present(study: Study, remedy: str) -> list[Path]:
    """Return the study's files, or say which are missing, who needs them and the remedy."""
    needed_by: dict[Path, str] = {}
    for region, grid in study.regions.items():
        if grid.area and (area := study.area(region)):
            needed_by.setdefault(area, f"area of region {region!r}")
        for layer in study.layers:
            needed_by.setdefault(study.file(layer, region), f"layer {layer.name!r}")
        needed_by.setdefault(study.file(study.deposits, region), "deposits")
    if folder := study.backbone_folder:
        needed_by[folder] = "backbone"
    missing = [f"\n  {path} ({user})" for path, user in needed_by.items() if not path.exists()]
    if missing:
        raise FileNotFoundError(f"study {study.name!r} lacks files; {remedy}{''.join(missing)}")
    return sorted({part for path in needed_by for part in artefacts.parts(path)})


def _generate(study: Study) -> None:
    """Write the demo's files, unless those there come from the same generator and seed."""
    from mpm import demo, demo_world

    stamp_file = study.raw / "generator.json"
    sources = [Path(str(module.__file__)) for module in (demo, demo_world)]
    generator = {source.name: artefacts.sha256(source) for source in sources}
    stamp = {"generator": generator, "seed": DEMO_SEED}
    if stamp_file.exists() and artefacts.read_json(stamp_file) == stamp:
        try:
            input_files(study)
            return
        except FileNotFoundError:
            pass  # somebody deleted a file: generate all again
    generated = stamp_file.exists() or (study.raw / "truth" / "layers.json").exists()
    if study.raw.exists() and any(study.raw.iterdir()) and not generated:
        # the generator replaces the folder as a whole
        raise FileExistsError(
            f"{study.raw} holds files that the demo's generator did not write; for a study of your "
            f"own say `fetch: none` in {study.path}, else move them away"
        )
    demo.write(study.raw, seed=DEMO_SEED)
    artefacts.write_json(stamp_file, stamp)


def _mirror() -> Path | None:
    value = os.environ.get("MPM_MIRROR")
    if not value:
        return None
    folder = Path(value).expanduser().resolve()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"MPM_MIRROR={value} is not a folder (looked for {folder}); correct it, or unset it "
            "to download"
        )
    return folder


def _download(entries: list[Entry], folder: Path, *, progress: bool) -> None:
    mirror = _mirror()
    pooch.get_logger().setLevel("WARNING")  # else a line a file
    # pooch checks what is there, fetches beside it, checks what came, and only then replaces
    store = pooch.create(
        path=folder,
        base_url="",
        registry={entry.name: entry.sha256 for entry in entries},
        urls={entry.name: entry.url for entry in entries},
        retry_if_failed=0 if mirror else 2,
    )
    total = sum(entry.bytes for entry in entries)
    # None: tqdm hides the bar where no person is watching
    hide = None if progress and not artefacts.quiet() else True
    with tqdm(total=total, unit="B", unit_scale=True, desc=folder.name, disable=hide) as bar:
        for entry in entries:
            _download_one(entry, store, mirror)
            bar.update(entry.bytes)


def _download_one(entry: Entry, store: pooch.Pooch, mirror: Path | None) -> None:
    from requests.exceptions import RequestException

    source = mirror / entry.place if mirror else entry.url

    def transfer(url: str, output: str, _: object) -> None:
        # pooch makes this file readable by its owner only; made anew it gets the usual rights
        Path(output).unlink()
        if not isinstance(source, Path):
            pooch.HTTPDownloader(timeout=60, hooks={"response": _only_https})(url, output, None)
        elif source.is_file():
            shutil.copyfile(source, output)
        else:
            raise FileNotFoundError(
                f"{entry.name}: the mirror has no {source}; complete the folder that MPM_MIRROR "
                f"names, or unset it to download {entry.url}"
            )

    try:
        store.fetch(entry.name, downloader=transfer)
    except RequestException as error:
        raise ConnectionError(
            f"{entry.name}: cannot download {entry.url} ({error}); try again with a network, or "
            f"set MPM_MIRROR to a folder that holds {entry.place}"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{entry.name}: what came from {source} was refused and nothing was replaced. {error} "
            "Fetch again; if the checksum stays wrong, that copy was changed: use another source"
        ) from error


def _only_https(response: "requests.Response", *_: object, **__: object) -> None:
    """Refuse to be sent on to an address that is not encrypted."""
    if response.is_redirect:
        onward = urljoin(response.url, response.headers["location"])
        if not onward.startswith("https://"):
            raise ValueError(f"{response.url} sends on to {onward}, which is not https")


def _convert(study: Study) -> None:
    """Turn files that are published in a form of their own into ones that GIS reads."""
    if study.name == "us_midcontinent_mini":
        from mpm import prospectmap

        prospectmap.convert_cube(study.raw / "cube.json", study.raw)
    elif study.name == "znpb":
        from mpm import conversion

        conversion.convert_continental(study.raw)
