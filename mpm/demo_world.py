"""The demo's synthetic geology: continents, mineral systems, deposits and their discovery.

Each continent is drawn from smooth random fields on a fine frame, and a mineral system of source,
pathway and trap, one for MVT and one for CD deposits, turns geology into the true probability of a
deposit in each cell. Deposits are drawn from that probability, and most of them stay hidden under
cover and far from towns. Module `demo` writes the files.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import contourpy
import numpy as np
import pandas as pd
from pyproj import Transformer
from rasterio.features import geometry_mask
from rasterio.transform import Affine, from_origin
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates
from shapely.geometry import LineString

from mpm.study import Region

ROCKS = ("carbonate", "siliciclastic", "shale", "volcanic", "granite", "metamorphic")
AGES = ("Cenozoic", "Mesozoic", "Paleozoic", "Proterozoic", "Archean")

_FINE = 2500.0  # cell size of the frame the fields are drawn on (m)
_MARGIN = 120_000.0  # how far the frame reaches beyond the region (m)


@dataclass(frozen=True)
class Frame:
    """The fine frame that one region is drawn on, and its own source of random fields."""

    name: str
    region: Region
    seed: int

    @property
    def side(self) -> int:
        """Rows, and columns, of the frame."""
        west, _, east, _ = self.region.bounds
        return round((east - west + 2 * _MARGIN) / _FINE)

    @property
    def transform(self) -> Affine:
        """Of the frame."""
        west, _, _, north = self.region.bounds
        return from_origin(west - _MARGIN, north + _MARGIN, _FINE, _FINE)

    @property
    def grid_transform(self) -> Affine:
        """Of the region's own grid."""
        west, _, _, north = self.region.bounds
        return from_origin(west, north, self.region.resolution, self.region.resolution)

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of the frame that lie in the region."""
        edge = round(_MARGIN / _FINE)
        return slice(edge, -edge), slice(edge, -edge)

    def rng(self, name: str) -> np.random.Generator:
        """A generator a name: changing one layer leaves the others as they are."""
        return np.random.default_rng([self.seed, zlib.crc32(f"{self.name}/{name}".encode())])

    def noise(self, name: str, length: float) -> np.ndarray:
        """Smooth noise (y, x) of mean 0 and variance 1, correlated over about `length` (km)."""
        white = self.rng(name).standard_normal((self.side, self.side))
        return _standard(smooth(white, length))

    def mask(self, geometries: list) -> np.ndarray:
        """Cells (y, x) touched by any of the geometries."""
        shape_ = (self.side, self.side)
        return ~geometry_mask(geometries, shape_, self.transform, all_touched=True)

    def place(self, cols_rows: np.ndarray) -> np.ndarray:
        """Put (n, 2) columns and rows into the region's CRS (m)."""
        corner = self.transform.c, self.transform.f
        return corner + cols_rows * (_FINE, -_FINE)

    def contours(self, values: np.ndarray) -> list[LineString]:
        """Lines in the region's CRS along which `values` (y, x) is 0."""
        lines = contourpy.contour_generator(z=values).lines(0.0)
        return [LineString(self.place(np.asarray(line) + 0.5)) for line in lines if len(line) > 20]


def draw_world(frame: Frame) -> dict:
    """Draw a continent: everything that rasters, vectors and the mineral systems are made of."""
    world = {"land": _land(frame)} | _tectonics(frame) | _faults(frame)
    world |= _rocks(frame, world)
    return world | _surface(frame, world)


def _land(frame: Frame) -> np.ndarray:
    """Land (y, x): about two thirds of the region, a ragged island."""
    east, north = _kilometres(frame)
    height = 0.7 * frame.noise("coast", 90) + 0.1 * frame.noise("bays", 18)
    height -= (np.hypot(east, north) / 420) ** 2
    return height > np.quantile(height[frame.inside], 0.32)


def _tectonics(frame: Frame) -> dict:
    """Terrane boundary, rifts, lithosphere and crustal blocks."""
    east, north = _kilometres(frame)
    angle = frame.rng("orogen").uniform(0, 2 * np.pi)
    ramp = east * np.cos(angle) + north * np.sin(angle) + 180 + 90 * frame.noise("orogen", 90)
    boundary = frame.contours(ramp)
    foreland = np.sign(ramp) * _distance(frame.mask(boundary))
    rift = np.exp(-((frame.noise("rift", 55) / 0.5) ** 2))
    sediment = 0.4 + 2.5 * np.exp(-np.abs(foreland - 60) / 120) + 5.5 * rift
    sediment = sediment * np.exp(0.25 * frame.noise("sediment", 25))
    lab = 150 + 30 * np.tanh(frame.noise("lab", 75) / 0.4) + 18 * frame.noise("lab regional", 110)
    return {
        "boundary": boundary,
        "foreland": foreland,  # km from the terrane boundary, negative in the orogen
        "rift": rift,
        "sediment": sediment,  # km
        "lab": lab,  # km
        "block": frame.noise("block", 45),
    }


def _rocks(frame: Frame, world: dict) -> dict[str, np.ndarray]:
    """Rock and age classes, codes from 1, and black shale (y, x)."""
    orogen = 1 / (1 + np.exp(world["foreland"] / 25))
    basin = _standard(world["sediment"])
    lean = {
        "carbonate": 0.5 - 2 * orogen,
        "siliciclastic": 0.1 - 0.5 * orogen,
        "shale": 0.4 * basin - orogen,
        "volcanic": -0.6 + 0.4 * orogen,
        "granite": -0.5 * basin + orogen - 0.4,
        "metamorphic": -0.5 * basin + 2 * orogen - 0.6,
    }
    scores = np.stack([lean[rock] + frame.noise(rock, 20) for rock in ROCKS])
    years = frame.noise("age", 40)
    black = (frame.noise("black shale", 30) + 0.5 * basin) > 0.8
    return {
        "lithology": scores.argmax(axis=0).astype("uint8") + 1,
        "age": np.digitize(years, [-1.1, -0.5, 0.6, 1.2]).astype("uint8") + 1,
        "black_shale": black,
    }


def _faults(frame: Frame) -> dict:
    """Crustal faults along pieces of block edges, and minor faults anywhere.

    A map does not tell one from the other; the gravity step along some of the crustal ones does.
    """
    rng = frame.rng("faults")
    crustal = []
    for name, length in [("block", 45), ("block 2", 75)]:
        for line in frame.contours(frame.noise(name, length)):
            crustal += [piece for piece in _pieces(line, 60_000) if rng.random() < 0.7]
    minor = [_segment(frame, rng) for _ in range(140)]
    return {"crustal": crustal, "faults": crustal + minor}


def _segment(frame: Frame, rng: np.random.Generator) -> LineString:
    """A gently bent fault of 15 to 60 km, somewhere in the frame."""
    start = frame.place(rng.uniform(0, frame.side, (1, 2)))
    heading = rng.uniform(0, np.pi) + np.cumsum(rng.normal(0, 0.15, 6))
    steps = rng.uniform(15_000, 60_000) / 6 * np.column_stack([np.cos(heading), np.sin(heading)])
    return LineString(np.vstack([start, start + np.cumsum(steps, axis=0)]))


def _pieces(line: LineString, length: float) -> Iterator[LineString]:
    """Cut a line into pieces of about `length` (m)."""
    points = np.asarray(line.coords)
    count = max(1, round(line.length / length))
    for part in np.array_split(np.arange(len(points)), count):
        if len(part) > 1:
            yield LineString(points[part[0] : part[-1] + 2])


def _surface(frame: Frame, world: dict) -> dict[str, np.ndarray]:
    """Cover (m), and how far the nearest of a few towns is (km)."""
    rng = frame.rng("towns")
    rows, cols = np.nonzero(world["land"])
    towns = np.zeros_like(world["land"])
    chosen = rng.choice(len(rows), 14, replace=False)
    towns[rows[chosen], cols[chosen]] = True
    return {
        "cover": 40 * np.exp(0.9 * frame.noise("cover", 45)),
        "remoteness": _distance(towns),
    }


def true_probability(frame: Frame, world: dict) -> dict[str, np.ndarray]:
    """Turn geology into the true probability (y, x) of a deposit in each cell of the region's grid.

    Every system is a product: where one ingredient is missing there is no deposit.
    """
    systems = {"MVT": _mvt(frame, world), "CD": _cd(frame, world)}
    truth = {}
    for target, favour in systems.items():
        rate = _to_grid(smooth(np.where(world["land"], favour, 0), 6), frame)
        rate = 230 * rate / rate.sum()
        truth[target] = np.where(land_cells(frame, world), 1 - np.exp(-rate), np.nan)
    return truth


def _mvt(frame: Frame, world: dict) -> np.ndarray:
    """Brine from the orogen (source), block-bounding faults (pathway), platform margin (trap)."""
    carbonate = is_rock(world, "carbonate")
    paleozoic = world["age"] == AGES.index("Paleozoic") + 1
    host = smooth(carbonate * np.where(paleozoic, 1.0, 0.3), 8)
    margin = smooth(carbonate, 10) * smooth(is_rock(world, "siliciclastic", "shale"), 10)
    brine = np.exp(-(((world["foreland"] - 220) / 80) ** 2))
    platform = np.exp(-(((world["sediment"] - 2.2) / 0.6) ** 2))
    trap = np.sqrt(host) * margin * platform
    return np.sqrt(brine * trap * _pathway(frame, world["crustal"], 12))


def _cd(frame: Frame, world: dict) -> np.ndarray:
    """Rift brine (source), edge of the thick lithosphere (pathway), black shale nearby (trap)."""
    shale = np.exp(-((_distance(world["black_shale"]) / 20) ** 2))
    rift = np.exp(-(((world["sediment"] - 4.5) / 0.8) ** 2))
    metal = 1 / (1 + np.exp(-2 * frame.noise("metal", 60)))  # no layer shows it
    slope = np.hypot(*np.gradient(smooth(world["lab"], 10), _FINE / 1000))
    edge = (slope / 1.5) ** 2 / (1 + (slope / 1.5) ** 2)
    return (shale * rift * edge * metal * _pathway(frame, world["faults"], 12)) ** 0.7


def is_rock(world: dict, *names: str) -> np.ndarray:
    """1.0 where the rock (y, x) is any of the names, else 0.0."""
    codes = [ROCKS.index(name) + 1 for name in names]
    return np.isin(world["lithology"], codes).astype(float)


def _pathway(frame: Frame, lines: list, width: float) -> np.ndarray:
    """How many faults there are within about `width` (km), levelling off (y, x)."""
    density = smooth(frame.mask(lines).astype(float), width)
    return density**2 / (density**2 + 0.15**2)


def draw_deposits(frame: Frame, world: dict, truth: dict) -> pd.DataFrame:
    """Draw deposits from the truth, then decide which of them are known."""
    volcanic = _to_grid(is_rock(world, "volcanic"), frame)
    rates = truth | {"VMS": np.where(np.isnan(truth["MVT"]), 0, 0.02 * volcanic)}
    tables = []
    for kind, probability in rates.items():
        rng = frame.rng(f"deposits of {kind}")
        drawn = rng.random(probability.shape) < np.nan_to_num(probability)
        rows, cols = np.nonzero(drawn)
        offset = rng.uniform(0.05, 0.95, (2, len(rows)))
        tables.append(
            pd.DataFrame({"row": rows + offset[0], "col": cols + offset[1], "type": kind})
        )
    rng = frame.rng("discovery")
    table = pd.concat(tables, ignore_index=True).sample(frac=1, random_state=rng)
    table["size"] = rng.lognormal(-0.5, 1.2, len(table)).round(3)
    table["discovered"] = rng.random(len(table)) < _discovery(frame, world, table)
    table.insert(0, "region", frame.name)
    table.insert(1, "id", [f"{frame.name[0].upper()}{i:04d}" for i in range(1, len(table) + 1)])
    return _with_coordinates(table, frame)


def _discovery(frame: Frame, world: dict, table: pd.DataFrame) -> np.ndarray:
    """Chance (deposit,) that a deposit is known: cover and remoteness hide, size helps."""
    edge, ratio = _MARGIN / _FINE, frame.region.resolution / _FINE
    at = [edge + table["row"] * ratio - 0.5, edge + table["col"] * ratio - 0.5]
    cover = map_coordinates(world["cover"], at, order=1)
    remote = map_coordinates(world["remoteness"], at, order=1)
    return 0.75 * np.exp(-cover / 110) * np.exp(-remote / 250) * np.clip(table["size"], 0.5, 1.5)


def _with_coordinates(table: pd.DataFrame, frame: Frame) -> pd.DataFrame:
    """Replace row and column by longitude and latitude (degrees)."""
    west, _, _, north = frame.region.bounds
    cell = frame.region.resolution
    to_degrees = Transformer.from_crs(frame.region.crs, "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform(west + table["col"] * cell, north - table["row"] * cell)
    table["longitude"], table["latitude"] = np.round(lon, 5), np.round(lat, 5)
    columns = ["region", "id", "type", "longitude", "latitude", "size", "discovered"]
    return table[columns]


def _kilometres(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """East and north (y, x) of the region's centre (km)."""
    along = (np.arange(frame.side) + 0.5 - frame.side / 2) * _FINE / 1000
    east, north = np.broadcast_arrays(along[np.newaxis, :], -along[:, np.newaxis])
    return east, north


def smooth(values: np.ndarray, width: float) -> np.ndarray:
    """Gaussian mean (y, x) of standard deviation `width` (km)."""
    return gaussian_filter(values, width * 1000 / _FINE, mode="wrap")


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()


def _distance(mask: np.ndarray) -> np.ndarray:
    """Distance (y, x) to the nearest cell of the mask (km)."""
    return distance_transform_edt(~mask) * _FINE / 1000


def land_cells(frame: Frame, world: dict) -> np.ndarray:
    """Cells (row, column) of the region's grid that are mostly land."""
    return _to_grid(world["land"].astype(float), frame) >= 0.5


def _to_grid(values: np.ndarray, frame: Frame) -> np.ndarray:
    """Mean (row, column) over the fine cells of each cell of the region's grid."""
    rows, cols = frame.region.shape
    ratio = round(frame.region.resolution / _FINE)
    return values[frame.inside].reshape(rows, ratio, cols, ratio).mean(axis=(1, 3))
