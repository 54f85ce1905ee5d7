"""Bring geometries from any CRS onto a region's plane, across 180 degrees and the poles."""

import numpy as np
import pyproj
import rioxarray  # noqa: F401  (adds the .rio accessor)
import shapely
import xarray as xr

EARTH = 6_371_000.0  # mean radius (m)
_HAIR = 0.1  # degrees: how far off 180 or a pole files may cut polygons open


def crs_code(crs: object) -> str:
    """Return the authority's code of a CRS, e.g. "EPSG:5070"; "" if none is the same CRS.

    Parameters
    ----------
    crs : CRS, or what `pyproj.CRS` takes

    Returns
    -------
    str
        Files rarely hold the code itself, and a CRS may bear the name of another than it is.
    """
    crs = pyproj.CRS(crs)
    code = crs.to_authority(min_confidence=20)
    same = code and pyproj.CRS.from_authority(*code).equals(crs, ignore_axis_order=True)
    return ":".join(code) if code and same else ""


def window(
    cells: xr.DataArray, crs: pyproj.CRS, reach: float
) -> tuple[float, float, float, float] | None:
    """Find the rectangle of another CRS that holds a region and its surroundings.

    Longitudes are counted on from the region's central meridian, so that a region across 180
    degrees is one rectangle, e.g. -196 to -40; a region with a pole in it takes all longitudes.

    Parameters
    ----------
    cells : DataArray (y, x)
        The region's grid.
    crs : CRS
        Of the rectangle.
    reach : float
        How far (m) the surroundings go.

    Returns
    -------
    tuple of float, or None
        West, south, east, north; None if `crs` can't show any of it.
    """
    x, y = _spread(cells, reach)
    there = pyproj.Transformer.from_crs(cells.rio.crs, crs, always_xy=True)
    east, north = there.transform(x, y)
    # off the edge of the map an inverse projection gives any number: only what comes back counts
    back = there.transform(east, north, direction="INVERSE")
    step = cells.rio.transform().a
    sound = np.hypot(back[0] - x, back[1] - y) < step
    if not sound.any():
        return None
    east, north = east[sound], north[sound]
    if crs.is_geographic:
        middle = _central_meridian(cells)
        east = middle + (east - middle + 180) % 360 - 180
    low, high = np.array([east.min(), north.min()]), np.array([east.max(), north.max()])
    # between the sampled points the outline may bulge, and no edge that is cut may reach inside
    slack = 0.03 * (high - low) + _longest_edge(cells, crs)
    low, high = low - slack, high + slack
    if crs.is_geographic:
        low, high = _on_the_globe(low, high, middle, _poles_within(cells, there, reach))
    return (*low, *high)


def turns(box: tuple[float, ...], bounds: tuple[float, ...], crs: pyproj.CRS) -> list[int]:
    """List the whole turns (degrees) by which a file's longitudes may differ from a window's."""
    if not crs.is_geographic:
        return [0]
    west, _, east, _ = box
    return [
        turn for turn in (-360, 0, 360) if west + turn <= bounds[2] and east + turn >= bounds[0]
    ]


def to_plane(
    shapes: np.ndarray,
    crs: pyproj.CRS,
    cells: xr.DataArray,
    box: tuple[float, ...],
    *,
    turn: int = 0,
    edges: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Clip geometries to a window and bring them to the region's CRS.

    Parameters
    ----------
    shapes : array (n,) of geometry
        In `crs`.
    crs : CRS
    cells : DataArray (y, x)
        The region's grid.
    box : tuple of float
        Of `window`.
    turn : int
        Of `turns`.
    edges : bool
        Turn polygons into their outlines first, without the cuts that files make at 180 degrees.

    Returns
    -------
    shapes : array (n,) of geometry
        In the CRS of `cells`; long edges follow their course in `crs`. A geometry may come in
        several parts.
    rows : array (n,) of int
        Which of the given geometries each belongs to.
    """
    shapes = _repaired(shapely.force_2d(shapes))
    if crs.is_geographic:
        shapes = _unwrapped(shapes)
    if edges:
        shapes = _outlines(shapes, crs)
    if turn:
        shapes = shapely.transform(shapes, lambda xy: xy - [turn, 0])
    if _same(crs, cells):
        return _clipped(shapes, shapely.box(*box))
    longest = _longest_edge(cells, crs)
    # before the clip, so that a part of a region sees the same edges as the whole
    shapes, rows = _clipped(segmentized(shapes, longest), shapely.box(*box))
    shapes = segmentized(shapes, longest)  # and the edges that the clip has made
    flat, sound = _projected(shapes, crs, cells)
    if not sound.all():
        # cut what reaches beyond the edge of the map into tiles, and leave out those beyond it
        tiles, which = _tiled(shapes[~sound], 5.0 if crs.is_geographic else 500_000.0)
        more, shown = _projected(tiles, crs, cells)
        flat = np.concatenate([flat[sound], more[shown]])
        rows = np.concatenate([rows[sound], rows[~sound][which[shown]]])
    return flat, rows


def segmentized(shapes: np.ndarray, longest: float) -> np.ndarray:
    """Cut edges of shapes (n,) into equal parts of at most `longest`; they stay what they are."""
    shapes = shapes.copy()
    some = shapely.length(shapes) > longest  # GEOS refuses lines of no length
    shapes[some] = shapely.segmentize(shapes[some], longest)
    return shapes


def _spread(cells: xr.DataArray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Spread points over the region and its surroundings: (n,), (n,)."""
    west, south, east, north = cells.rio.bounds()
    share = np.linspace(0, 1, 61)
    x, y = np.meshgrid(
        west - reach + share * (east - west + 2 * reach),
        south - reach + share * (north - south + 2 * reach),
    )
    # where the surroundings go off the map, the region itself must still be met
    inner_x, inner_y = np.meshgrid(west + share * (east - west), south + share * (north - south))
    return np.append(x, inner_x), np.append(y, inner_y)


def _central_meridian(cells: xr.DataArray) -> float:
    """Return the longitude opposite which the region's projection cuts the globe open."""
    crs = pyproj.CRS(cells.rio.crs)
    made_by = crs.coordinate_operation
    for parameter in made_by.params if made_by else ():
        if parameter.name.startswith("Longitude of") and parameter.unit_name == "degree":
            return float(parameter.value)
    west, south, east, north = cells.rio.bounds()
    to_degrees = pyproj.Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
    return to_degrees.transform((west + east) / 2, (south + north) / 2)[0]


def _poles_within(cells: xr.DataArray, there: pyproj.Transformer, reach: float) -> list[int]:
    """Return the latitudes, of -90 and 90, that lie in the region or its surroundings."""
    west, south, east, north = cells.rio.bounds()
    meridian, found = _central_meridian(cells), []
    for latitude in (-90, 90):
        x, y = there.transform(meridian, latitude, direction="INVERSE")
        if west - reach <= x <= east + reach and south - reach <= y <= north + reach:
            found.append(latitude)
    return found


def _on_the_globe(
    low: np.ndarray | list[float], high: np.ndarray | list[float], middle: float, poles: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    rim_low, rim_high = np.array([middle - 180, -90]), np.array([middle + 180, 90])
    if poles:  # every meridian ends there
        low, high = [rim_low[0], min([low[1], *poles])], [rim_high[0], max([high[1], *poles])]
    return np.maximum(low, rim_low), np.minimum(high, rim_high)


def _same(crs: pyproj.CRS, cells: xr.DataArray) -> bool:
    return crs == pyproj.CRS(cells.rio.crs)


def _longest_edge(cells: xr.DataArray, crs: pyproj.CRS) -> float:
    """Return the length below which an edge bends off its chord by less than 2 % of a cell.

    An arc of length a on a circle of radius R stands a**2 / (8 R) above its chord.
    """
    arc = np.sqrt(8 * 0.02 * cells.rio.transform().a / EARTH)
    return np.degrees(arc) if crs.is_geographic else arc * EARTH


def _repaired(shapes: np.ndarray) -> np.ndarray:
    """Make polygons valid, and drop lines and rings of no length."""
    shapes, wrong = shapes.copy(), ~shapely.is_valid(shapes)
    shapes[wrong] = shapely.make_valid(shapes[wrong], method="structure", keep_collapsed=False)
    return shapes


def _unwrapped(shapes: np.ndarray) -> np.ndarray:
    """Undo jumps from 180 to -180 degrees within a line or ring: let longitudes run on.

    An edge longer than 180 degrees is such a jump, unless it keeps to its parallel as the sides of
    a box do, or lies near a pole; a ring that would not close is left alone.
    """
    west, _, east, _ = shapely.bounds(shapes).T
    shapes = shapes.copy()
    for number in np.nonzero(east - west > 180)[0]:
        parts = shapely.get_parts(shapes[number])
        parts = shapely.get_rings(parts) if shapely.get_dimensions(parts).max() == 2 else parts
        xy, part = shapely.get_coordinates(parts, return_index=True)
        across, up = np.diff(xy, axis=0).T
        jump = (np.abs(across) > 180) & (up != 0) & (np.abs(xy[1:, 1]) < 85) & (np.diff(part) == 0)
        shift = np.append(0, np.cumsum(np.where(jump, -360 * np.sign(across), 0)))
        first, last = (np.searchsorted(part, part, side) for side in ("left", "right"))
        shift -= shift[first]
        shift[(shift[last - 1] != 0) & shapely.is_closed(parts)[part]] = 0
        if shift.any():
            shift = np.column_stack([shift, np.zeros(len(xy))])
            shapes[number] = shapely.set_coordinates(shapes[number], xy + shift)
    return _repaired(shapes)


def _outlines(shapes: np.ndarray, crs: pyproj.CRS) -> np.ndarray:
    """Turn polygons into their outlines, without edges along a file's cut or a pole."""
    polygons = shapely.get_dimensions(shapes) == 2
    shapes = shapes.copy()
    shapes[polygons] = shapely.boundary(shapes[polygons])
    if not crs.is_geographic:
        return shapes
    west, south, east, north = shapely.bounds(shapes).T
    cut = (
        0 if np.nanmax(east, initial=0) > 180 + _HAIR else 180
    )  # longitudes 0 to 360, or -180 to 180
    rim = np.minimum(_off_meridian(west, cut), _off_meridian(east, cut))
    rim = np.minimum(rim, 90 - np.maximum(-south, north))
    for number in np.nonzero(polygons & (rim < _HAIR))[0]:
        xy, part = shapely.get_coordinates(shapely.get_parts(shapes[number]), return_index=True)
        wide, high = np.abs(np.diff(xy, axis=0)).T
        false = _along(_off_meridian(xy[:, 0], cut), high, wide)
        false |= _along(90 - np.abs(xy[:, 1]), wide, high)
        keep = (part[1:] == part[:-1]) & ~false & (wide + high > 0)
        edges = shapely.linestrings(np.stack([xy[:-1], xy[1:]], axis=1)[keep])
        shapes[number] = shapely.multilinestrings(edges)
    return shapes


def _along(off: np.ndarray, length: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Say which edges run along a cut: much longer than they and their ends are off it."""
    farther = np.maximum(np.maximum(off[1:], off[:-1]), across)
    return farther < np.minimum(_HAIR, 0.2 * length)


def _off_meridian(longitude: np.ndarray, meridian: float) -> np.ndarray:
    return np.abs((longitude - meridian + 180) % 360 - 180)


def _clipped(shapes: np.ndarray, box: shapely.Geometry) -> tuple[np.ndarray, np.ndarray]:
    shapely.prepare(box)
    rows = np.nonzero(shapely.intersects(shapes, box))[0]
    shapes = shapes[rows]
    across = ~shapely.contains_properly(box, shapes)
    dimension = shapely.get_dimensions(shapes)
    shapes[across] = shapely.intersection(shapes[across], box)
    return _alike(shapes, rows, dimension)


def _alike(
    shapes: np.ndarray, rows: np.ndarray, dimension: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Keep the parts of intersections that are of the original's dimension, e.g. 2 for polygons."""
    mixed = shapely.get_type_id(shapes) == shapely.GeometryType.GEOMETRYCOLLECTION
    parts, which = shapely.get_parts(shapes[mixed], return_index=True)
    shapes = np.concatenate([shapes[~mixed], parts])
    dimension = np.concatenate([dimension[~mixed], dimension[mixed][which]])
    rows = np.concatenate([rows[~mixed], rows[mixed][which]])
    keep = (shapely.get_dimensions(shapes) == dimension) & ~shapely.is_empty(shapes)
    order = np.argsort(rows[keep], kind="stable")
    return shapes[keep][order], rows[keep][order]


def _projected(
    shapes: np.ndarray, crs: pyproj.CRS, cells: xr.DataArray
) -> tuple[np.ndarray, np.ndarray]:
    """Project geometries, and say which of them lie on the map as a whole."""
    across = pyproj.Transformer.from_crs(crs, cells.rio.crs, always_xy=True)
    xy, owner = shapely.get_coordinates(shapes, return_index=True)
    flat = np.column_stack(across.transform(*xy.T))
    sound = np.ones(len(shapes), bool)
    sound[owner[~np.isfinite(flat).all(axis=1)]] = False
    return shapely.set_coordinates(shapes.copy(), flat), sound


def _tiled(shapes: np.ndarray, side: float) -> tuple[np.ndarray, np.ndarray]:
    parts, which = [], []
    for number, shape in enumerate(shapes):
        west, south, east, north = shape.bounds
        x, y = np.meshgrid(np.arange(west, east + side, side), np.arange(south, north + side, side))
        tiles = shapely.intersection(shape, shapely.box(x, y, x + side, y + side).ravel())
        parts.append(tiles)
        which.append(np.full(tiles.size, number))
    all_parts, owner = np.concatenate(parts), np.concatenate(which)
    return _alike(all_parts, owner, shapely.get_dimensions(shapes)[owner])
