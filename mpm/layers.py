"""One evidence layer of a study file: which file, what it holds, and how it is to be read."""

import re
from typing import Annotated, Literal, Self, get_args

import pyproj
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

Kind = Literal["continuous", "categorical", "fraction", "distance", "density", "points", "derived"]
Derivation = Literal["hgm", "slope", "worms", "highpass", "vertical"]
MineralSystem = Literal["source", "pathway", "trap", "preservation"]
SYSTEM = get_args(MineralSystem)

# What else a layer of each kind may say; name, group, units, file, why and source all may.
_FITS = {
    "continuous": {"band", "variable", "crs", "column", "scale", "valid_range"},
    "categorical": {"band", "variable", "crs", "column", "classes"},
    "fraction": {"band", "variable", "crs", "column", "classes"},
    "distance": {"column", "classes", "edges", "scale"},
    "density": {"column", "classes", "reach", "scale"},
    "points": {"x", "y", "crs", "column", "method", "reach", "scale", "valid_range"},
    "derived": {"derive", "of", "reach"},
}
_NEEDS = {"density": ("reach",), "points": ("column", "reach"), "derived": ("derive", "of")}
_ALWAYS = {"name", "group", "kind", "units", "file", "why", "source", "licence", "mineral_system"}
_UNITS = {"hgm": "{}/km", "slope": "m/m", "worms": "m", "highpass": "{}", "vertical": "{}/km"}


def _without_control_characters(name: str) -> str:
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", name):
        raise ValueError(f"{name!r} holds a character that cannot be seen; type the name anew")
    return name


FileName = Annotated[str, AfterValidator(_without_control_characters)]


class Strict(BaseModel):
    """A part of the study file: unknown keys are mistakes, values are finite and stay."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Layer(Strict):
    """One evidence layer.

    Attributes
    ----------
    name : str
        Unique in the study.
    group : str
        E.g. "geophysics", "geology"; layers of a group are drawn and explained together.
    kind : str
        "continuous": raster of numbers, or a column of an H3 table. "categorical": raster of codes,
        polygons or an H3 table with `column`; becomes one layer a class. "fraction": area share of
        polygons (of `classes` of `column`, if given) or of codes. "distance": distance (m) to the
        features of a vector file. "density": of features within `reach`. "points": values at
        points, gridded. "derived": computed from another layer; goes without saying.
    units : str
        Of the file's values times `scale`; "m" for distances, "1" for shares and classes. Derived
        layers know their own.
    file : str, optional
        Path below the study's data folder; "{region}" stands for the region's name. Derived layers
        have none.
    band : int
        Raster band, or position along the third dimension of a NetCDF variable, from 1.
    variable : str, optional
        NetCDF variable; needed only where the file has several.
    crs : str, optional
        CRS of a raster or table that does not say. Longitudes and latitudes of a NetCDF or GMT grid
        are taken for EPSG:4326.
    x, y : str
        Columns of a table's coordinates, in `crs`.
    column : str, optional
        Attribute that holds the class, or the value.
    classes : tuple of str or int, optional
        Classes to keep; by default all that occur.
    edges : bool
        Distance to the outlines of polygons rather than to the polygons.
    reach : float, optional
        Distance (m). Density: radius of the circle. Points: cells farther than this from any point
        stay missing. High pass: radius of the circle whose mean is taken off.
    method : {"linear", "cubic", "nearest"}
        How values at points are gridded.
    scale : float
        Number that the values are multiplied by.
    valid_range : tuple of float, optional
        Lowest and highest of the file's values (before `scale`) that are not missing.
    derive : {"hgm", "slope", "worms", "highpass", "vertical"}, optional
        What is computed; `mpm.derive` says how.
    of : str, optional
        Layer that it is computed from, which stands before it.
    why : str
        Why a geologist would want it for these deposits.
    source : str
        Who made it, with a DOI or address.
    licence : str
        Of the file; by default the study's, or that of `data/registry.csv`.
    mineral_system : {"source", "pathway", "trap", "preservation"}, optional
        What of a mineral system it shows: where metal, brine or energy comes from; what led the
        fluid; what made it drop its metal; whether ore was kept and can be found. Methods never
        see it: explanations are compared with it.
    """

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")
    group: str
    kind: Kind = "continuous"
    units: str = ""
    file: FileName | None = None
    band: int = Field(default=1, ge=1)
    variable: str | None = None
    crs: str | None = None
    x: str = "longitude"
    y: str = "latitude"
    column: str | None = None
    classes: tuple[str | int, ...] | None = None
    edges: bool = False
    reach: float | None = Field(default=None, gt=0)
    method: Literal["linear", "cubic", "nearest"] = "linear"
    scale: float = 1.0
    valid_range: tuple[float, float] | None = None
    derive: Derivation | None = None
    of: str | None = None
    why: str = ""
    source: str = ""
    licence: str = ""
    mineral_system: MineralSystem | None = None

    @model_validator(mode="before")
    @classmethod
    def _derived_goes_without_saying(cls, content: object) -> object:
        if isinstance(content, dict) and content.get("derive") is not None:
            return {"kind": "derived"} | content
        return content

    @field_validator("crs")
    @classmethod
    def _known_crs(cls, crs: str | None) -> str | None:
        if crs is not None:
            read_crs(crs)
        return crs

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> Self:
        given = {name for name in self.model_fields_set if getattr(self, name) is not None}
        wrong = sorted(given - _ALWAYS - _FITS[self.kind])
        if wrong:
            verb = "make" if len(wrong) > 1 or wrong == ["classes"] else "makes"
            hint = "; a derived layer states no kind" if "derive" in wrong else ""
            raise ValueError(
                f"layer {self.name!r}: {', '.join(wrong)} {verb} no sense for kind {self.kind!r}"
                + hint
            )
        needed = _NEEDS.get(self.kind, ()) + (("reach",) if self.derive == "highpass" else ())
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"layer {self.name!r}: {self.derive or self.kind} needs `{name}`")
        return self

    @model_validator(mode="after")
    def _file_or_parent(self) -> Self:
        if self.derive is None and not (self.file and self.units):
            lacking = "file" if not self.file else "units"
            raise ValueError(f"layer {self.name!r}: `{lacking}` is missing")
        if self.derive is not None and self.file:
            raise ValueError(f"layer {self.name!r} is derived of {self.of!r}; leave `file` out")
        if self.derive not in (None, "highpass") and self.reach is not None:
            raise ValueError(f"layer {self.name!r}: reach makes no sense for {self.derive}")
        return self

    @field_validator("valid_range")
    @classmethod
    def _low_before_high(cls, limits: tuple[float, float] | None) -> tuple[float, float] | None:
        if limits is not None and limits[0] >= limits[1]:
            raise ValueError("valid_range must be lowest, highest")
        return limits


def read_crs(text: str) -> pyproj.CRS:
    """Return a CRS from anything pyproj reads.

    Raises
    ------
    ValueError
        If it is unknown.
    """
    try:
        return pyproj.CRS.from_user_input(text)
    except pyproj.exceptions.CRSError as error:
        raise ValueError(f"{text!r} is not a CRS that pyproj knows") from error


def derived(layer: Layer, parent: Layer) -> Layer:
    """Return a derived layer with its units, and its source if it names none, from its parent's.

    Raises
    ------
    ValueError
        If the parent holds classes, a slope is asked of what is no height in metres, or the layer
        states other units.
    """
    if parent.kind == "categorical":
        raise ValueError(
            f"layer {layer.name!r}: {parent.name!r} holds classes, which have no {layer.derive}"
        )
    if layer.derive == "slope" and parent.units != "m":
        raise ValueError(
            f"layer {layer.name!r}: slope needs heights in m; {parent.name!r} is in {parent.units}"
        )
    assert layer.derive is not None  # called for layers that are derived
    units = _UNITS[layer.derive].format(parent.units)
    if layer.units not in ("", units):
        raise ValueError(
            f"layer {layer.name!r}: {layer.derive} of {parent.name!r} is in {units}, not in "
            f"{layer.units}; leave `units` out"
        )
    return layer.model_copy(update={"units": units, "source": layer.source or parent.source})
