"""Fill a study's data folder: generated, downloaded and checked, or the user's own files."""

import csv
import os
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import numpy as np
import pandas as pd
import pooch
import rasterio
from rasterio.transform import from_bounds, xy
from tqdm import tqdm

from mpm import artefacts
from mpm.study import Study

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
    if study.fetch == "none":
        return _present(study, f"put the files there, or correct `file` in {study.path}")
    inside = artefacts.home() / "data" / "studies" in study.path.parents
    return _present(study, f"run `mpm fetch {study.path.stem if inside else study.path}`")


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
        If a column is missing, the study has no rows, or two of its files share a name.
    """
    with Path(path).open(newline="", encoding="utf-8") as stream:
        rows = csv.DictReader(stream)
        columns = list(Entry.__dataclass_fields__)
        missing = [column for column in columns if column not in (rows.fieldnames or ())]
        if missing:
            raise ValueError(f"{path} has no column {', '.join(missing)}; add it")
        chosen = [{c: row[c] for c in columns} for row in rows if row["study"] == study_name]
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


def _present(study: Study, remedy: str) -> list[Path]:
    """Return the study's files, or say which are missing, who needs them and the remedy."""
    needed_by: dict[Path, str] = {}
    for region, grid in study.regions.items():
        if grid.area:
            area = study.raw / grid.area.replace("{region}", region)
            needed_by.setdefault(area, f"area of region {region!r}")
        for layer in study.layers:
            needed_by.setdefault(study.file(layer, region), f"layer {layer.name!r}")
        needed_by.setdefault(study.file(study.deposits, region), "deposits")
    missing = [f"\n  {path} ({user})" for path, user in needed_by.items() if not path.exists()]
    if missing:
        raise FileNotFoundError(f"study {study.name!r} lacks files; {remedy}{''.join(missing)}")
    return sorted({part for path in needed_by for part in artefacts.parts(path)})


def _generate(study: Study) -> None:
    """Write the demo's files, unless those there come from the same generator and seed."""
    from mpm import demo, demo_world

    stamp_file = study.raw / "generator.json"
    sources = [Path(module.__file__) for module in (demo, demo_world)]
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
        if mirror is None:
            pooch.HTTPDownloader(timeout=60)(url, output, None)
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


def _convert(study: Study) -> None:
    """Turn files that are published in a form of their own into ones that GIS reads."""
    if study.name == "us_midcontinent_mini":
        convert_prospectmap_cube(study.raw / "cube.json", study.raw)
    elif study.name == "znpb":
        from mpm import conversion

        conversion.convert_continental(study.raw)


def convert_prospectmap_cube(path: Path, folder: Path) -> list[Path]:
    """Write the layers of a ProspectMap cube as GeoTIFFs and its deposits as a table.

    Outputs that are all there and not older than `path` are left alone.

    Parameters
    ----------
    path : Path
        JSON with `nx`, `ny`, `box` (west, south, east, north, crs), `layers` (id, name, values:
        row-major from the north-west, null where missing) and `depositIdx` (flat indices).
    folder : Path
        Where `<id>.tif` (float32, NaN where missing) and `deposit_cells.csv` (cell centres, row
        and column, type "MVT_CD") go.

    Returns
    -------
    list of Path
        The GeoTIFFs in the cube's order, then the table.

    Raises
    ------
    ValueError
        If a key is missing, or lengths, layer names or deposit indices do not fit.

    Source: CAOS_ProspectMap, schema "prospectmap.realcube/v1".
    """
    cube = _read_cube(Path(path))
    tifs = [Path(folder) / f"{layer['id']}.tif" for layer in cube["layers"]]
    table = Path(folder) / "deposit_cells.csv"
    made = Path(path).stat().st_mtime_ns
    if any(not p.exists() or p.stat().st_mtime_ns < made for p in [*tifs, table]):
        for tif, layer in zip(tifs, cube["layers"], strict=True):
            _write_layer(tif, layer, cube)
        _write_deposit_cells(table, cube)
    return [*tifs, table]


def _read_cube(path: Path) -> dict:
    """Read a ProspectMap cube and check everything that the conversion relies on."""
    cube = artefacts.read_json(path)
    _need(cube, ("nx", "ny", "box", "layers", "depositIdx"), str(path))
    _need(cube["box"], ("west", "south", "east", "north", "crs"), f"{path}: box")
    cells = cube["nx"] * cube["ny"]
    for number, layer in enumerate(cube["layers"], 1):
        _check_layer(layer, f"{path}: layer number {number}", cube)
    ids = [layer["id"].lower() for layer in cube["layers"]]
    if len(set(ids)) < len(ids):
        raise ValueError(f"{path}: two layers share an id: {', '.join(ids)}")
    outside = [i for i in cube["depositIdx"] if not (isinstance(i, int) and 0 <= i < cells)]
    if outside:
        raise ValueError(f"{path}: depositIdx {outside[0]!r} is no cell number (0 to {cells - 1})")
    return cube


def _check_layer(layer: dict, where: str, cube: dict) -> None:
    _need(layer, ("id", "values"), where)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", str(layer["id"])):
        raise ValueError(f"{where}: id {layer['id']!r} cannot be a file name; rename it")
    values, rows, columns = layer["values"], cube["ny"], cube["nx"]
    if len(values) != rows * columns:
        raise ValueError(
            f"{where} ({layer['id']}) has {len(values)} values, but {rows} rows of {columns} "
            f"columns are {rows * columns}; fetch the file again"
        )
    wrong = [value for value in values if not (value is None or isinstance(value, int | float))]
    if wrong:
        raise ValueError(
            f"{where} ({layer['id']}) holds {wrong[0]!r}, which is neither number nor null"
        )


def _need(content: object, keys: tuple[str, ...], where: str) -> None:
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise ValueError(f"{where} has no {', '.join(missing)}; is this a ProspectMap cube?")


def _cube_transform(cube: dict) -> rasterio.Affine:
    sides = (cube["box"][side] for side in ("west", "south", "east", "north"))
    return from_bounds(*sides, width=cube["nx"], height=cube["ny"])


def _write_layer(tif: Path, layer: dict, cube: dict) -> None:
    # None becomes NaN
    values = np.array(layer["values"], dtype="float32").reshape(cube["ny"], cube["nx"])
    profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "nodata": np.nan}
    profile |= {"width": cube["nx"], "height": cube["ny"], "compress": "deflate"}
    profile |= {"crs": cube["box"]["crs"], "transform": _cube_transform(cube)}
    with artefacts.atomic(tif) as fresh, rasterio.open(fresh, "w", **profile) as raster:
        raster.write(values, 1)
        raster.set_band_description(1, layer.get("name", layer["id"]))


def _write_deposit_cells(table: Path, cube: dict) -> None:
    row, col = np.divmod(np.array(cube["depositIdx"], dtype=int), cube["nx"])
    longitude, latitude = xy(_cube_transform(cube), row, col)
    columns = {"longitude": longitude, "latitude": latitude, "row": row, "col": col}
    cells = pd.DataFrame(columns).assign(type="MVT_CD").round(6)  # 1e-6 degree is 0.1 m
    with artefacts.atomic(table) as fresh:
        cells.to_csv(fresh, index=False, lineterminator="\n")
