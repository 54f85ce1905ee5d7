"""The study file: regions, evidence layers, deposits and targets, and nothing about methods."""

import difflib
import hashlib
import math
import os
from pathlib import Path
from typing import Annotated, Literal, Self

import pandas as pd
import pyproj
import yaml
from pydantic import (
    BaseModel,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from mpm import artefacts, study_errors
from mpm.layers import FileName, Layer, Strict, derived, read_crs

# regions and targets name files
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
# what a cube holds besides its targets
_TAKEN = {"evidence", "valid", "spatial_ref", "layer", "x", "y", "group", "units", "kind"}
_TAKEN |= {"origin", "method", "source", "checksum", "why"}
# cells of one grid; a layer of that many takes 1.6 GB, and more is nearly always a slip in bounds
_LARGEST = 400_000_000


class Region(Strict):
    """One grid: a projected CRS in metres, square cells, bounds that are whole cells.

    Attributes
    ----------
    crs : str
        Anything pyproj reads, e.g. "ESRI:102008". Must be projected, in metres.
    resolution : float
        Cell size (m).
    bounds : tuple of float
        West, south, east, north (m, in `crs`).
    area : str, optional
        Vector file whose polygons bound the study area (land, a permit); cells outside hold no
        evidence. By default the whole grid.
    """

    crs: str
    resolution: float = Field(gt=0)
    bounds: tuple[float, float, float, float]
    area: FileName | None = None

    @field_validator("crs")
    @classmethod
    def _in_metres(cls, text: str) -> str:
        crs = read_crs(text)
        if not crs.is_projected or crs.axis_info[0].unit_conversion_factor != 1:
            raise ValueError(f"{text} is not projected in metres; distances need a projected CRS")
        return text

    @model_validator(mode="after")
    def _bounds_are_of_the_crs(self) -> Self:
        crs = read_crs(self.crs)
        given = ", ".join(f"{side:.10g}" for side in self.bounds)
        if max(map(abs, self.bounds)) <= 360:
            raise ValueError(
                f"bounds {given} look like degrees; they must be in metres of the CRS ({crs.name})"
            )
        xmin, xmax, ymin, ymax = self.bounds
        area = _area_of_use(crs)
        if area and _share(self.bounds, area) < 0.5 < _share((xmin, ymin, xmax, ymax), area):
            raise ValueError(
                f"bounds {given} seem to be xmin, xmax, ymin, ymax; the order is west, south, east,"
                f" north: {xmin:.10g}, {ymin:.10g}, {xmax:.10g}, {ymax:.10g}"
            )
        return self

    @model_validator(mode="after")
    def _whole_cells(self) -> Self:
        west, south, east, north = self.bounds
        if not (west < east and south < north):
            raise ValueError(
                "bounds must be west, south, east, north with west < east, south < north"
            )
        rows, columns = (north - south) / self.resolution, (east - west) / self.resolution
        if rows * columns > _LARGEST:
            raise ValueError(
                f"the grid would have {rows:,.10g} rows x {columns:,.10g} columns, more than "
                f"{_LARGEST:,} cells; check the order of bounds (west, south, east, north) and "
                "that resolution is in metres, or make cells larger"
            )
        for low, high, side in [(west, east, "east-west"), (south, north, "north-south")]:
            cells = (high - low) / self.resolution
            if abs(cells - round(cells)) > 1e-6:
                raise ValueError(
                    f"{side} extent {high - low:g} m is not a whole number of "
                    f"{self.resolution:g} m cells; change bounds or resolution"
                )
        return self

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        west, south, east, north = self.bounds
        return round((north - south) / self.resolution), round((east - west) / self.resolution)


def _area_of_use(crs: pyproj.CRS) -> tuple[float, ...] | None:
    """Return west, south, east, north (m) of where a CRS is meant to be used, if that is known."""
    if crs.area_of_use is None:
        return None
    try:
        there = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
        area = there.transform_bounds(*crs.area_of_use.bounds)
    except pyproj.exceptions.ProjError:
        return None
    return area if all(map(math.isfinite, area)) else None


def _share(box: tuple[float, ...], area: tuple[float, ...]) -> float:
    """Return which share of a box lies in an area; 0 for a box whose sides are swapped."""
    share = 1.0
    for low, high, least, most in zip(box[:2], box[2:], area[:2], area[2:], strict=True):
        if low >= high:
            return 0.0
        share *= max(0.0, min(high, most) - max(low, least)) / (high - low)
    return share


class Deposits(Strict):
    """Known deposits: a table of points, or a raster whose non-zero cells are deposits.

    Attributes
    ----------
    file : str
        CSV, or GeoTIFF; "{region}" stands for the region's name.
    x, y : str
        Columns of a CSV's coordinates.
    crs : str
        CRS of those coordinates.
    type, name : str, optional
        Columns of the deposit type, which targets select by, and of the name.
    group : str, optional
        Column whose rows of one value are one deposit; by default each row is one.
    source : str
        Who compiled it.
    licence : str
        Of the file; by default the study's, or that of `data/registry.csv`.
    """

    file: FileName
    x: str = "longitude"
    y: str = "latitude"
    crs: str = "EPSG:4326"
    type: str | None = None
    name: str | None = None
    group: str | None = None
    source: str = ""
    licence: str = ""


class Target(Strict):
    """What to predict: deposits of some types, with a positive neighbourhood.

    Attributes
    ----------
    types : tuple of str, optional
        Values of the deposits' type column; all deposits if left out.
    radius : float
        Cells whose centre lies within this distance (m) of a deposit inside the region's grid are
        positive, and always the cell that holds it. A deposit outside makes no cell positive,
        however near it lies.
    """

    types: tuple[str, ...] | None = None
    radius: float = Field(default=0.0, ge=0)

    def of(self, known: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of a table of known deposits that are of the target's types."""
        return known if self.types is None else known[known["type"].isin(self.types)]


class Backbone(Strict):
    """A backbone that was pretrained elsewhere, to be used instead of one of the study's own.

    Attributes
    ----------
    folder : str
        Of a backbone as notebook 02 saves it (`model.json`, `model.safetensors`, `scaling.json`);
        below the study's data folder, or a full path.
    layers : dict
        The backbone's layers, each with the layer of this study that stands for it, or null where
        there is none. All classes of a layer at once ("rock: lithology"), or one by one
        ("rock=shale: lithology=mudstone"). Layers of the same name need no entry.
    """

    folder: str
    layers: dict[str, str | None] = Field(default_factory=dict)


class Study(Strict):
    """A study file, validated.

    Attributes
    ----------
    name : str
        Names the folders of its artefacts and figures.
    title, description, licence, citation : str
        Shown in the notebooks.
    folder : str
        Data folder; relative to `data/raw` of the compendium for studies that come with it, to the
        YAML file for anyone else's. By default `name`.
    fetch : {"demo", "registry", "none"}
        How `mpm fetch` gets the files: generated, downloaded by `data/registry.csv`, or the
        user's own.
    regions : dict of Region
    layers : tuple of Layer
    deposits : Deposits
    targets : dict of Target
    backbone : Backbone, optional
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    title: str = ""
    description: str = ""
    licence: str = ""
    citation: str = ""
    folder: FileName | None = None
    fetch: Literal["demo", "registry", "none"] = "none"
    regions: dict[Name, Region] = Field(min_length=1)
    layers: tuple[Layer, ...] = Field(min_length=1)
    deposits: Deposits
    targets: dict[Name, Target] = Field(min_length=1)
    backbone: Backbone | None = None
    path: Path

    @field_validator("layers")
    @classmethod
    def _unique_layers(cls, layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
        names = [layer.name for layer in layers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"duplicate layer name: {', '.join(twice)}; rename one of them")
        return layers

    @field_validator("layers")
    @classmethod
    def _derived_from_layers_before(cls, layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
        known: dict[str, Layer] = {}
        for layer in layers:
            if layer.derive is not None:
                if layer.of not in known:
                    raise ValueError(
                        f"layer {layer.name!r} is derived of {layer.of!r}, which is no layer before"
                        f" it; before it are {', '.join(known) or 'none'}"
                    )
                layer = derived(layer, known[layer.of])
            known[layer.name] = layer
        return tuple(known.values())

    @model_validator(mode="after")
    def _targets_have_names_of_their_own(self) -> Self:
        for name in self.targets:
            if name in _TAKEN or name in {layer.name for layer in self.layers}:
                raise ValueError(
                    f"target {name!r} is called like a layer or another part of the cube; rename it"
                )
        return self

    @model_validator(mode="after")
    def _types_need_a_column(self) -> Self:
        for name, target in self.targets.items():
            if target.types is not None and self.deposits.type is None:
                raise ValueError(
                    f"target {name!r} selects types, but deposits name no type column; "
                    "add `type: <column>` under deposits"
                )
        return self

    @property
    def raw(self) -> Path:
        """Folder of the study's input files."""
        base = artefacts.home() / "data" / "raw" if self._is_ours else self.path.parent
        return base / (self.folder or self.name)

    @property
    def processed(self) -> Path:
        """Folder of the study's artefacts."""
        return artefacts.processed(self.name)

    @property
    def figures(self) -> Path:
        """Folder of the study's figures."""
        return artefacts.figures(self.name)

    @property
    def remedy(self) -> str:
        """What to do about a missing file."""
        if self.fetch == "none":
            return f"put the file there, or correct `file` in {self.path}"
        return f"run `mpm fetch {self.path.stem if self._is_ours else self.path}`"

    @property
    def _is_ours(self) -> bool:
        """Whether it comes with the compendium."""
        return artefacts.home() / "data" / "studies" in self.path.parents

    def file(self, item: Layer | Deposits, region: str) -> Path:
        """Return the path of a layer's or the deposits' file for one region.

        A derived layer's file is that of the layer it is computed from.
        """
        while isinstance(item, Layer) and item.of is not None:
            item = self.layer(item.of)
        assert item.file is not None  # `layers.Layer` asks for it
        return self.raw / item.file.replace("{region}", region)

    def area(self, region: str) -> Path | None:
        """Return the path of the vector file that bounds a region's study area, if there is one."""
        name = self.regions[region].area
        return None if name is None else self.raw / name.replace("{region}", region)

    @property
    def backbone_folder(self) -> Path | None:
        """Folder of the backbone that was pretrained elsewhere, if the study names one."""
        if self.backbone is None:
            return None
        return Path(os.path.normpath(self.raw / self.backbone.folder))

    def layer(self, name: str) -> Layer:
        """Return a layer by name.

        Raises
        ------
        KeyError
            If the study has no such layer; the message gives the nearest names.
        """
        known = {layer.name: layer for layer in self.layers}
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0) or known
            raise KeyError(
                f"study {self.name!r} has no layer {name!r}; nearest are {', '.join(near)}"
            )
        return known[name]

    def target(self, name: str) -> Target:
        """Return a target by name.

        Raises
        ------
        KeyError
            If the study has no such target; the message lists those it has.
        """
        if name not in self.targets:
            raise KeyError(
                f"study {self.name!r} has no target {name!r}; it has {', '.join(self.targets)}"
            )
        return self.targets[name]


def studies() -> dict[str, Path]:
    """Return the study files that come with the compendium, by name."""
    folder = artefacts.home() / "data" / "studies"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(name_or_path: str) -> Path:
    """Return the path of a study file from a name under `data/studies/` or from a path.

    Raises
    ------
    FileNotFoundError
        If there is no such study, or a folder; the message offers the nearest names.
    """
    known = studies()
    if name_or_path in known:
        return known[name_or_path]
    path = Path(name_or_path)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:
        raise FileNotFoundError(f"{path} cannot be reached ({error.strerror})") from error
    if is_folder:
        raise FileNotFoundError(f"{path} is a folder; name the YAML file")
    if path.suffix in (".yaml", ".yml"):
        if is_file:
            return path.resolve()
        raise FileNotFoundError(f"study file {path} does not exist")
    near = difflib.get_close_matches(name_or_path, known, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
    raise FileNotFoundError(f"no study is called {name_or_path!r}; {hint}")


def load(name_or_path: str) -> Study:
    """Read and validate a study file.

    Parameters
    ----------
    name_or_path : str
        A name under `data/studies/`, or a path to a YAML file.

    Returns
    -------
    Study

    Raises
    ------
    FileNotFoundError
        If there is no such study, or a folder.
    ValueError
        If the file may not be read, is not YAML or breaks a rule; the message names the file and
        each entry.
    """
    path = find(name_or_path)
    content = _read(path)
    # which the program sets itself
    lines = ["  path: no such key; leave it out"] if "path" in content else []
    try:
        found = Study.model_validate(content | {"path": path})
    except ValidationError as error:
        keys = {part: list(model.model_fields) for part, model in _PARTS.items()}
        lines.insert(0, study_errors.explain(error, content, keys))
        raise ValueError("\n".join([f"{path} is not a valid study:", *lines])) from error
    if lines:
        raise ValueError("\n".join([f"{path} is not a valid study:", *lines]))
    return found


def _read(path: Path) -> dict:
    """Return the top-level keys of a study file."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except OSError as error:
        raise ValueError(
            f"{path} cannot be read ({error.strerror}); check its permissions"
        ) from error
    # ValueError: wrong encoding, or what looks like a date and is none
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path} is not readable YAML: {error}") from error
    except RecursionError as error:
        raise ValueError(
            f"{path} is not readable YAML: it is nested too deeply; are there brackets too many?"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a study file: it holds no top-level keys")
    return content


# what a study holds, and what stands there; "" is the study itself
_PARTS: dict[str, type[BaseModel]] = {
    "": Study,
    "regions": Region,
    "layers": Layer,
    "deposits": Deposits,
    "targets": Target,
    "backbone": Backbone,
}


class _UniqueKeys(yaml.SafeLoader):
    """YAML that refuses a key given twice (PyYAML silently keeps the last)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = []
        for place, _ in node.value:
            if place.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(place, deep=True)
            if key in seen:
                raise yaml.YAMLError(f"duplicate name {key!r}; rename one\n{place.start_mark}")
            seen.append(key)
        return super().construct_mapping(node, deep)


def content_hash(study: Study) -> str:
    """Return a hash of what the study says, whatever its layout, comments or place (16 digits)."""
    text = study.model_dump_json(exclude={"path"})
    return hashlib.sha256(text.encode()).hexdigest()[:16]
