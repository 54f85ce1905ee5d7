"""Vector files and tables that cannot be used, through `mpm check`."""

from functools import partial

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from bad_inputs import Bad, cut, edit, judge
from ground import SITES, write_points
from helpers import NORTH, WEST, at, write_shapes
from shapely.geometry import LineString, Polygon

FAULTS = ("'fault_distance'", "faults.shp")
ROCK = ("'rock'", "geology.gpkg")
SITES_FILE = ("deposits", "deposits.csv")
HEAT = ("'heat'", "heat.csv")
BESIDE = (".shx", ".dbf", ".prj", ".cpg")


def faults(shapes, **options):
    "Put another shapefile in the place of the faults"

    def spoil(home):
        for path in (home / "data").glob("faults.*"):
            path.unlink()
        write_shapes(home / "data/faults.shp", shapes, **options)

    return spoil


def rock(shapes, **options):
    def spoil(home):
        (home / "data/geology.gpkg").unlink()
        write_shapes(home / "data/geology.gpkg", shapes, **options)

    return spoil


def parts(*suffixes):
    "Delete parts of the shapefile"
    return lambda home: [(home / "data/faults").with_suffix(each).unlink() for each in suffixes]


def bare(home):
    "A shapefile of no features"
    table = gpd.GeoDataFrame({"id": np.array([], int)}, geometry=[], crs="EPSG:32633")
    for suffix in BESIDE:
        (home / "data/faults").with_suffix(suffix).unlink(missing_ok=True)
    table.to_file(home / "data/faults.shp", geometry_type="LineString")


BLOCK, LINE = at(0, 0, 20, 20), LineString([(WEST, NORTH), (WEST + 9000, NORTH)])
BOW = Polygon([(WEST, NORTH), (WEST + 9e3, NORTH - 9e3), (WEST + 9e3, NORTH), (WEST, NORTH - 9e3)])
Vector, Table = partial(Bad, "vector"), partial(Bad, "table")
VECTORS = [
    Vector("missing", parts(".shp"), [*FAULTS, "is missing"]),
    Vector(
        "no .dbf, and classes asked for",
        lambda home: [
            parts(".dbf")(home),
            edit("toy.yaml", "faults.shp", "faults.shp, column: type, classes: [thrust]")(home),
        ],
        [*FAULTS, "no column 'type'"],
    ),
    Vector("no .prj", parts(".prj"), [*FAULTS, "no CRS; add a .prj"]),
    Vector(
        ".shx and shapes cut short",
        lambda home: [parts(".shx")(home), cut("data/faults.shp", 0.5)(home)],
        [*FAULTS, "cut short"],
    ),
    Vector("no features", bare, [*FAULTS, "no feature"]),
    Vector("elsewhere", faults([LineString([(0, 0), (1, 1)])], crs="EPSG:32733"), [*FAULTS, "CRS"]),
    Vector("metres called degrees", faults([LINE], crs="EPSG:4326"), [*FAULTS, "look like metres"]),
    Vector(
        "degrees called metres",
        faults([LineString([(15, 45), (15.1, 45)])], crs="EPSG:3857"),
        [*FAULTS, "degrees", "correct it"],
    ),
    Vector("text", lambda home: (home / "data/faults.shp").write_text("no"), [*FAULTS]),
    Vector(
        "lines where polygons are needed",
        rock([LINE], rock=["shale"]),
        [*ROCK, "holds no polygons"],
    ),
    Vector("no such column", rock([BLOCK], rok=["shale"]), [*ROCK, "no column 'rock'", "'rok'"]),
    Vector("its class blank", rock([BLOCK], rock=[None]), [*ROCK, "no class"]),
    Vector(
        "a class it has not",
        edit("toy.yaml", "column: rock", "column: rock, classes: [shal]"),
        [*ROCK, "'shal'", "did you mean 'shale'"],
    ),
    Vector(
        "empty",
        lambda home: (home / "data/geology.gpkg").write_bytes(b""),
        [*ROCK, "cannot be read"],
    ),
    Vector("cut short", cut("data/geology.gpkg", 0.3), [*ROCK]),
    Vector(
        "self-crossing, without area inside",
        rock([Polygon([(0, 0), (1, 1), (0, 0)])], rock=["shale"]),
        [*ROCK],
    ),
    Vector(
        "101 classes",
        rock([BLOCK] * 101, rock=[f"r{k}" for k in range(101)]),
        ["'rock'", "101 classes", "`classes`"],
    ),
]


def deposits(text, encoding="utf-8"):
    "Put another table in the place of the deposits"
    return lambda home: (home / "data/deposits.csv").write_bytes(text.encode(encoding))


def table(change, name="deposits.csv"):
    "Change a table"

    def spoil(home):
        path = home / "data" / name
        change(pd.read_csv(path)).to_csv(path, index=False)

    return spoil


def put(column, value, row=2):
    def change(rows):
        rows[column] = rows[column].astype("object")
        rows.loc[row, column] = value
        return rows

    return table(change)


TABLES = [
    Table("missing", lambda home: (home / "data/deposits.csv").unlink(), [*SITES_FILE, "missing"]),
    Table("empty", deposits(""), [*SITES_FILE, "it is empty"]),
    Table("commas only", deposits(",,,\n,,,\n"), [*SITES_FILE, "nothing but delimiters"]),
    Table("heading only", deposits("longitude,latitude,type,name\n"), ["'MVT'", "no rows"]),
    Table(
        "no column of longitudes",
        table(lambda rows: rows.rename(columns={"longitude": "lon"})),
        [*SITES_FILE, "no column 'longitude'", "'lon'"],
    ),
    Table(
        "a column twice",
        deposits("longitude,longitude,latitude,type\n15,15,45,MVT\n"),
        [*SITES_FILE, "2 columns 'longitude'", "rename"],
    ),
    Table(
        "text in coordinates",
        put("longitude", "15 E"),
        [*SITES_FILE, "line 4", "'longitude' is not a number"],
    ),
    Table(
        "a blank coordinate",
        put("latitude", None),
        [*SITES_FILE, "line 4", "'latitude' is not a number"],
    ),
    Table("infinite", put("latitude", "inf"), [*SITES_FILE, "line 4", "'latitude'"]),
    Table(
        "latitude 95",
        put("latitude", 95),
        [*SITES_FILE, "line 4", "no latitude", "exchange x and y"],
    ),
    Table(
        "longitude 400000",
        put("longitude", 400_000),
        [*SITES_FILE, "line 4", "not in degrees; correct it"],
    ),
    Table(
        "exchanged coordinates",
        table(lambda rows: rows.rename(columns={"longitude": "latitude", "latitude": "longitude"})),
        [*SITES_FILE, "exchange"],
    ),
    Table(
        "all elsewhere",
        table(lambda rows: rows.assign(longitude=rows["longitude"] + 60)),
        ["'MVT'", "none inside the region", "look like degrees"],
    ),
    Table(
        "just outside the grid",
        table(lambda rows: rows.assign(longitude=14.999)),
        ["'MVT'", "none inside the region"],
    ),
    Table(
        "no such type", table(lambda rows: rows.assign(type="CD")), ["'MVT'", "types inside: CD"]
    ),
    Table("type blank", put("type", None), [*SITES_FILE, "line 4", "'type' is missing"]),
    Table("text of nulls", deposits("\0\0\0\0"), [*SITES_FILE, "not text"]),
    Table("a broken quote", deposits('longitude,latitude,type\n15,45,"MVT\n'), [*SITES_FILE]),
    Table(
        "more fields than headings",
        deposits("longitude,latitude\n15,45,MVT\n"),
        [*SITES_FILE, "line 2", "3 fields"],
    ),
    Table(
        "UTF-16 cut in a letter",
        lambda home: (home / "data/deposits.csv").write_bytes(
            "longitude,latitude,type\n15.1,45,MVT".encode("utf-16")[:-1]
        ),
        [*SITES_FILE],
    ),
    Table(
        "a raster by its content",
        lambda home: (home / "data/deposits.csv").write_bytes(
            (home / "data/gravity.tif").read_bytes()
        ),
        [*SITES_FILE, "not text"],
    ),
    Table(
        "stations: no such column",
        table(lambda rows: rows.rename(columns={"flow": "q"}), "heat.csv"),
        [*HEAT, "no column 'flow'"],
    ),
    Table(
        "stations: text for a value",
        table(lambda rows: rows.assign(flow="high"), "heat.csv"),
        [*HEAT, "'flow' is not a number"],
    ),
    Table("stations: all blank", table(lambda rows: rows.assign(flow=None), "heat.csv"), [*HEAT]),
    Table(
        "stations: far away",
        lambda home: write_points(
            home / "data/heat.csv", [(row, col + 4000) for row, col in SITES], flow=[1] * len(SITES)
        ),
        [*HEAT],
    ),
]


@pytest.mark.parametrize("bad", VECTORS + TABLES, ids=str)
def test_a_bad_vector_file_or_table_is_named_and_harms_nothing(bad, home, capsys, record_property):
    "Layer, file, line and column are named with what to do, and earlier results stay"
    judge(bad, home, capsys, record_property)
