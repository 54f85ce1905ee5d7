import h3
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import pytest
import rasterio
from helpers import NORTH, STEP, WEST, write_shapes, write_tif
from rasterio.windows import Window
from shapely.geometry import LineString, box

from mpm import align, derive, kinds, places
from mpm.study import Region, Study

REGION = {"crs": "EPSG:32633", "resolution": STEP, "bounds": (WEST, NORTH - 12e3, 512_000, NORTH)}
NAMED = {"group": "geology"}
FILES = {"coarse": 1700, "fine": 300, "codes": 450}


@pytest.fixture
def study(tmp_path):
    "Make a study of 12 x 12 cells of 1 km whose files lie in tmp_path/mine"
    (tmp_path / "mine").mkdir()

    def study(*layers) -> Study:
        return Study(
            name="mine",
            regions={"here": REGION},
            layers=[
                NAMED | (layer if "derive" in layer else {"units": "m"} | layer) for layer in layers
            ],
            deposits={"file": "deposits.csv"},
            targets={"MVT": {}},
            path=tmp_path / "mine.yaml",
        )

    return study


def write_all(study):
    "Rasters with gaps, polygons over the north-west only, faults, points and hexagons"
    rng = np.random.default_rng(0)
    for name, step in FILES.items():
        count = 16_000 // step
        values = rng.normal(size=(count, count)).astype("float32")
        values[rng.random(values.shape) < (0.1 if name == "fine" else 0.03)] = np.nan
        if name == "codes":
            values = rng.integers(0, 4, values.shape).astype("uint8")
        gap = {"nodata": 0} if name == "codes" else {}
        write_tif(
            study.raw / f"{name}.tif",
            values,
            step=step,
            west=WEST - 2000,
            north=NORTH + 2000,
            **gap,
        )
    rocks = [
        box(WEST - 1e3, NORTH - 3400, WEST + 2300, NORTH),
        box(WEST, NORTH - 5e3, WEST + 9e3, NORTH - 3e3),
    ]
    write_shapes(study.raw / "rocks.gpkg", rocks, rock=["granite", "shale"])
    lines = [LineString([(WEST + 2e3, NORTH - 9e3), (WEST + 11e3, NORTH - 1e3)])]
    write_shapes(study.raw / "faults.gpkg", lines)
    x, y = WEST + rng.uniform(0, 12e3, 40), NORTH - rng.uniform(0, 12e3, 40)
    points = pd.DataFrame({"x": x, "y": y, "flow": rng.uniform(40, 90, 40)})
    points.to_csv(study.raw / "flow.csv", index=False)
    write_hexagons(study)


def write_hexagons(study):
    "Hexagons under the region's western half, each with its longitude, a rock and a flag"
    to_degrees = pyproj.Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True)
    x, y = np.meshgrid(np.arange(WEST, WEST + 6000, 250), np.arange(NORTH - 12_000, NORTH, 250))
    points = np.stack(to_degrees.transform(x, y), axis=-1).reshape(-1, 2)
    cells = sorted({h3.latlng_to_cell(*point[::-1], 7) for point in points})
    longitude = np.array([h3.cell_to_latlng(cell)[1] for cell in cells])
    middle = np.median(longitude)
    columns = {
        "H3_Address": pa.array([h3.str_to_int(cell) for cell in cells], pa.uint64()),
        "longitude": longitude,
        "is_west": longitude < middle,
        "rock": np.where(longitude < middle, "granite", "shale"),
    }
    pq.write_table(pa.table(columns), study.raw / "cells.parquet")


EVERY = [
    {"name": "coarse", "file": "coarse.tif", "scale": -2},
    {"name": "fine", "file": "fine.tif"},
    {"name": "number", "file": "cells.parquet", "column": "longitude"},
    {"name": "flag", "file": "cells.parquet", "column": "is_west"},
    {"name": "codes", "kind": "categorical", "file": "codes.tif"},
    {"name": "rocks", "kind": "categorical", "file": "rocks.gpkg", "column": "rock"},
    {"name": "hexagons", "kind": "categorical", "file": "cells.parquet", "column": "rock"},
    {"name": "share", "kind": "fraction", "file": "rocks.gpkg"},
    {
        "name": "shale",
        "kind": "fraction",
        "file": "rocks.gpkg",
        "column": "rock",
        "classes": ["shale"],
    },
    {"name": "two", "kind": "fraction", "file": "codes.tif", "classes": [2, 1]},
    {"name": "away", "kind": "distance", "file": "faults.gpkg"},
    {"name": "outline", "kind": "distance", "file": "rocks.gpkg", "edges": True, "scale": 0.001},
    {"name": "dense", "kind": "density", "file": "faults.gpkg", "reach": 3000},
    {
        "name": "flow",
        "kind": "points",
        "file": "flow.csv",
        "column": "flow",
        "x": "x",
        "y": "y",
        "crs": "EPSG:32633",
        "reach": 3000,
    },
    {"name": "steep", "derive": "hgm", "of": "fine"},
    {"name": "slope", "derive": "slope", "of": "coarse"},
    {"name": "worms", "derive": "worms", "of": "away"},
    {"name": "local", "derive": "highpass", "of": "coarse", "reach": 4000},
    {"name": "steeper", "derive": "hgm", "of": "local"},
    {"name": "down", "derive": "vertical", "of": "away"},
]


def read(study, name, part=None):
    cells = align.grid(study.regions["here"])
    return kinds.read(study, study.layer(name), "here", cells, part)


def told(study, name):
    return kinds.describe(study, study.layer(name), "here", align.grid(study.regions["here"]))


@pytest.mark.parametrize("name", [layer["name"] for layer in EVERY])
def test_a_part_is_a_part_of_the_whole(study, name):
    "Of every kind, bit by bit: in the middle, and in the far corner where polygons have ended"
    mine = study(*EVERY)
    write_all(mine)
    planes = read(mine, name)
    assert all(np.isfinite(plane).any() for plane in planes)
    for part in [(slice(2, 9), slice(3, 11)), (slice(9, 12), slice(9, 12))]:
        for plane, found in zip(planes, read(mine, name, part), strict=True):
            np.testing.assert_array_equal(found, plane[part])


# ---- rasters and hexagons


def test_a_scale_multiplies_what_comes_out(study):
    "A depth of 3 km becomes a height of -3000 m"
    mine = study({"name": "moho", "file": "moho.tif", "scale": -1000})
    write_tif(mine.raw / "moho.tif", np.full((12, 12), 3, "float32"))
    (plane,) = read(mine, "moho")
    assert (plane == -3000).all()
    assert told(mine, "moho") == (["moho"], "continuous", "bilinear from 1 km")


def test_a_fraction_of_codes_is_of_what_is_known(study):
    "In cell (0, 0) two of three known pixels are 1 or 2; in cell (0, 1) only one is known"
    mine = study({"name": "two", "kind": "fraction", "file": "codes.tif", "classes": [1, 2]})
    codes = np.full((24, 24), 3, "uint8")
    codes[:2, :4] = [[1, 3, 0, 0], [2, 0, 0, 1]]
    write_tif(mine.raw / "codes.tif", codes, step=500, nodata=0)
    (plane,) = read(mine, "two")
    np.testing.assert_allclose(plane[0, :3], [2 / 3, np.nan, 0], rtol=1e-6)
    assert told(mine, "two") == (["two"], "continuous", "area share of pixels of 500 m")


def test_a_class_of_hexagons_is_that_under_the_centre(study):
    "West of the middle granite, then shale, then nothing; a flag is a binary layer"
    mine = study(*EVERY)
    write_all(mine)
    granite, shale = read(mine, "hexagons")
    names, kind, _ = told(mine, "hexagons")
    assert names == ["hexagons=granite", "hexagons=shale"] and kind == "binary"
    (flag,) = read(mine, "flag")
    np.testing.assert_array_equal(flag, granite)
    np.testing.assert_array_equal(shale, 1 - granite)
    assert (granite[:, 0] == 1).all() and np.isnan(granite[:, -1]).all()
    assert told(mine, "flag") == (["flag"], "binary", "H3 cell at the centre")


def test_whole_numbers_of_hexagons_are_classes_and_missing_where_there_is_no_hexagon(study):
    "In the west 7, then nothing: no hexagon is not known ground of another class"
    mine = study({"name": "unit", "kind": "categorical", "file": "cells.parquet", "column": "unit"})
    mine.raw.mkdir(exist_ok=True)
    write_hexagons(mine)
    table = pq.read_table(mine.raw / "cells.parquet")
    units = pa.array(np.full(len(table), 7))
    pq.write_table(table.append_column("unit", units), mine.raw / "cells.parquet")
    (plane,) = read(mine, "unit")
    assert told(mine, "unit") == (["unit=7"], "binary", "one-hot by H3 cell at the centre")
    assert (plane[:, 0] == 1).all() and np.isnan(plane[:, -1]).all()


def test_numbers_of_hexagons_have_a_valid_range(study):
    "West of 15.04 degrees is out of it"
    mine = study(
        {"name": "east", "file": "cells.parquet", "column": "longitude", "valid_range": (15.04, 16)}
    )
    mine.raw.mkdir(exist_ok=True)
    write_hexagons(mine)
    (plane,) = read(mine, "east")
    assert np.isnan(plane[:, 0]).all() and np.nanmin(plane) >= 15.04


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"column": "rock"}, "'rock' holds text; use kind: categorical"),
        ({"column": "rok"}, "no column 'rok'"),
        ({}, "name the column of .*cells.parquet"),
        ({"kind": "fraction", "column": "rock"}, "kind fraction needs polygons"),
        ({"kind": "categorical", "column": "longitude"}, "holds numbers"),
    ],
)
def test_a_column_that_does_not_fit_is_named_with_its_layer(study, layer, said):
    mine = study(layer | {"name": "thing", "file": "cells.parquet"})
    mine.raw.mkdir(exist_ok=True)
    write_hexagons(mine)
    with pytest.raises(ValueError, match=f"'thing'.*{said}"):
        read(mine, "thing")


def test_a_damaged_table_cannot_be_read(study):
    "Whatever kind of error its reader has for it"
    mine = study({"name": "thing", "file": "cells.parquet", "column": "rock"})
    mine.raw.mkdir(exist_ok=True)
    (mine.raw / "cells.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(OSError):
        read(mine, "thing")


# ---- classes


@pytest.mark.parametrize("kind", ["categorical", "fraction"])
def test_classes_of_a_raster_are_numbers(study, kind):
    mine = study({"name": "thing", "kind": kind, "file": "codes.tif", "classes": ["granite"]})
    write_tif(mine.raw / "codes.tif", np.ones((12, 12), "uint8"))
    with pytest.raises(
        ValueError, match="'thing': .*codes.tif is a raster; its `classes` are numb"
    ):
        read(mine, "thing")


def test_a_fraction_of_a_raster_names_its_codes(study):
    mine = study({"name": "thing", "kind": "fraction", "file": "codes.tif"})
    write_tif(mine.raw / "codes.tif", np.ones((12, 12), "uint8"))
    with pytest.raises(ValueError, match="'thing': .*`classes` to count; .*codes.tif is neither"):
        read(mine, "thing")


@pytest.mark.parametrize("layer", EVERY, ids=lambda layer: layer["name"])
def test_a_layer_is_described_without_its_values(study, layer, monkeypatch):
    "As many names as planes, though nothing that makes planes is called"
    mine = study(*EVERY)
    write_all(mine)
    count = len(read(mine, layer["name"]))
    for made in ("_continuous", "_classes", "_fraction", "_derived", "_shares"):
        monkeypatch.setattr(kinds, made, None)
    monkeypatch.setattr(kinds.vectors, "features", None)
    names, kind, method = told(mine, layer["name"])
    assert len(names) == count and kind in ("continuous", "binary") and len(method) > 10


def test_polygons_are_no_continuous_layer(study):
    mine = study({"name": "thing", "file": "rocks.gpkg"})
    with pytest.raises(ValueError, match="'thing': .*rocks.gpkg is no raster; name its `kind`"):
        read(mine, "thing")


def test_polygons_state_their_own_crs(study):
    mine = study({"name": "thing", "kind": "fraction", "file": "rocks.gpkg", "crs": "EPSG:32633"})
    with pytest.raises(ValueError, match="'thing': .*rocks.gpkg states its own CRS"):
        read(mine, "thing")


def test_classes_are_those_named_or_those_that_occur(study):
    "Sorted, nodata left out"
    mine = study(*EVERY, EVERY[4] | {"name": "named", "classes": [3, 1]})
    write_all(mine)
    known = {
        name: kinds.layer_classes(mine, mine.layer(name)) for name in ("codes", "rocks", "named")
    }
    assert known == {"codes": [1, 2, 3], "rocks": ["granite", "shale"], "named": [3, 1]}


def test_a_layer_of_many_classes_must_name_those_to_keep(study):
    "101 codes are a raster of numbers, most likely"
    mine = study({"name": "thing", "kind": "categorical", "file": "codes.tif"})
    write_tif(mine.raw / "codes.tif", np.arange(576).reshape(24, 24) % 102, step=500, nodata=0)
    with pytest.raises(ValueError, match="'thing' has 101 classes; name the ones to keep under"):
        kinds.layer_classes(mine, mine.layer("thing"))


def write_quarters(study, *codes):
    "Codes in the four quarters of cell (0, 0), 9 in the rest of the north, the south unmapped"
    pixels = np.full((24, 24), 9, "uint8")
    pixels[:2, :2] = np.reshape(codes, (2, 2))
    pixels[12:] = 0
    write_tif(study.raw / "codes.tif", pixels, step=500, nodata=0)


@pytest.mark.parametrize(
    ("codes", "first", "third"),
    [
        ((1, 1, 2, 3), 1, 0),
        ((2, 2, 1, 3), 0, 0),
        ((3, 2, 2, 2), 0, 0),
        ((1, 0, 0, 0), np.nan, np.nan),
    ],
)
def test_a_class_that_nobody_named_votes_and_is_known_ground(study, codes, first, third):
    "Where code 2 or 9 rules, the planes of 1 and 3 are 0, not missing; south of the map they are"
    mine = study({"name": "two", "kind": "categorical", "file": "codes.tif", "classes": [1, 3]})
    write_quarters(mine, *codes)
    pixels = np.array([[1, 3]], "uint8")  # each named code occurs somewhere
    with rasterio.open(mine.raw / "codes.tif", "r+") as file:
        file.write(pixels, 1, window=Window(22, 0, 2, 1))
    one, three = read(mine, "two")
    assert told(mine, "two")[0] == ["two=1", "two=3"]
    np.testing.assert_array_equal([one[0, 0], three[0, 0]], [first, third])
    assert one[3, 3] == three[3, 3] == 0 and np.isnan([one[8, 3], three[8, 3]]).all()


def test_the_others_vote_as_one_where_they_are_too_many(study):
    "120 codes: code 5 fills cell (0, 0), a quarter of cell (0, 1)"
    mine = study({"name": "five", "kind": "categorical", "file": "codes.tif", "classes": [5]})
    codes = (np.arange(24 * 24).reshape(24, 24) % 115 + 6).astype("uint8")
    codes[:2, :2], codes[0, 2] = 5, 5
    write_tif(mine.raw / "codes.tif", codes, step=500)
    (plane,) = read(mine, "five")
    assert plane[0, 0] == 1 and plane[0, 1] == 0 and plane.sum() == 1


def test_polygons_that_nobody_named_vote_too(study):
    "Shale holds 60 % of cell (0, 1): it is known, and no granite; east of shale nothing is known"
    mine = study(EVERY[5] | {"classes": ["granite"]})
    shapes = [box(WEST, NORTH - 12e3, WEST + 1400, NORTH)]
    shapes += [box(WEST + 1400, NORTH - 12e3, WEST + 6000, NORTH)]
    write_shapes(mine.raw / "rocks.gpkg", shapes, rock=["granite", "shale"])
    (granite,) = read(mine, "rocks")
    np.testing.assert_array_equal(granite[0, [0, 1, 5, 6]], [1, 0, 0, np.nan])


def test_a_fraction_of_a_class_is_missing_where_the_map_shows_nothing(study):
    "A quarter of cell (0, 0) is shale, all of it is mapped; cell (0, 6) lies off the map"
    mine = study(EVERY[8])
    shapes = [box(WEST, NORTH - 12e3, WEST + 6000, NORTH)]
    shapes += [box(WEST, NORTH - 400, WEST + 600, NORTH)]
    write_shapes(mine.raw / "rocks.gpkg", shapes, rock=["granite", "shale"])
    (share,) = read(mine, "shale")
    np.testing.assert_allclose(share[0, [0, 5, 6]], [6 / 25, 0, np.nan], atol=1e-6)


@pytest.mark.parametrize("kind", ["categorical", "fraction"])
def test_a_code_that_no_raster_holds_is_named(study, kind):
    "A slip of the pen would be a plane of zeros"
    mine = study({"name": "thing", "kind": kind, "file": "codes.tif", "classes": [1, 7]})
    write_quarters(mine, 1, 1, 2, 3)
    for look in (read, told):
        with pytest.raises(ValueError, match="'thing': .*codes.tif .* class 7; .* 1, 2, 3, 9"):
            look(mine, "thing")


@pytest.mark.parametrize(
    "layer",
    [
        {"file": "rocks.gpkg", "kind": "categorical"},
        {"file": "rocks.gpkg", "kind": "fraction"},
        {"file": "rocks.gpkg", "kind": "distance"},
        {"file": "rocks.gpkg", "kind": "density", "reach": 3000},
        {"file": "cells.parquet", "kind": "categorical"},
    ],
)
def test_a_class_that_occurs_nowhere_is_named_with_the_nearest_ones(study, layer):
    "Of features and of hexagons"
    mine = study(layer | {"name": "thing", "column": "rock", "classes": ["Granit"]})
    write_all(mine)
    said = "'thing': .*has rock 'Granit'; did you mean 'granite'.; there are granite, shale"
    for look in (read, told):
        with pytest.raises(ValueError, match=said):
            look(mine, "thing")


@pytest.mark.parametrize("kind", ["categorical", "fraction"])
def test_an_empty_list_of_classes_is_refused(study, kind):
    mine = study({"name": "thing", "kind": kind, "file": "codes.tif", "classes": []})
    write_quarters(mine, 1, 1, 2, 3)
    with pytest.raises(ValueError, match="'thing': `classes` is empty; name some"):
        read(mine, "thing")


def test_a_raster_without_a_code_has_no_classes(study):
    mine = study({"name": "thing", "kind": "categorical", "file": "codes.tif"})
    write_tif(mine.raw / "codes.tif", np.zeros((12, 12), "uint8"), nodata=0)
    with pytest.raises(ValueError, match="'thing': .*codes.tif holds no class"):
        read(mine, "thing")


THERE = REGION | {"bounds": (WEST + 90e3, NORTH - 12e3, WEST + 102e3, NORTH)}


def test_a_class_of_another_region_is_no_mistake(study, tmp_path):
    "Basalt occurs there only; a file that is needed to tell is named with what to do about it"
    fields = {"name": "thing", "kind": "fraction", "file": "{region}.gpkg", "column": "rock"}
    mine = study(fields | {"classes": ["basalt"]})
    mine = mine.model_copy(update={"regions": mine.regions | {"there": Region(**THERE)}})
    write_shapes(mine.raw / "here.gpkg", [box(WEST, NORTH - 9e3, WEST + 9e3, NORTH)], rock=["ore"])
    with pytest.raises(FileNotFoundError, match="'thing': .*there.gpkg is missing; put the file"):
        read(mine, "thing")
    shape = box(WEST + 90e3, NORTH - 9e3, WEST + 99e3, NORTH)
    write_shapes(mine.raw / "there.gpkg", [shape], rock=["basalt"])
    assert np.nansum(read(mine, "thing")[0]) == 0


def test_a_table_of_attributes_is_read_once_for_all_parts(study, monkeypatch):
    "Of a file in which every named class occurs, and of it alone"
    mine, asked, reads = study(*EVERY), [], kinds.classes_of_features
    write_all(mine)
    monkeypatch.setattr(
        kinds, "classes_of_features", lambda path, *a: asked.append(path.name) or reads(path, *a)
    )
    for row in range(4):
        read(mine, "shale", (slice(3 * row, 3 * row + 3), slice(0, 12)))
    assert asked == ["rocks.gpkg"]


@pytest.mark.parametrize("name", ["two", "shale", "codes", "rocks"])
def test_shares_are_counted_once(study, name, monkeypatch):
    "Those of the classes and that of all come from one look"
    mine, asked = study(*EVERY), []
    write_all(mine)
    for module, function in [(kinds.resample, "class_shares"), (kinds.vectors, "shares")]:
        shares = getattr(module, function)
        spy = lambda *a, shares=shares: asked.append(1) or shares(*a)  # noqa: E731
        monkeypatch.setattr(module, function, spy)
    read(mine, name)
    assert len(asked) == 1


@pytest.mark.parametrize("kind", ["categorical", "fraction"])
def test_a_table_is_no_map_of_classes(study, kind):
    mine = study({"name": "thing", "kind": kind, "file": "codes.csv", "classes": [1]})
    (mine.raw / "codes.csv").write_text("x,y,code\n1,2,3\n")
    with pytest.raises(ValueError, match="'thing': .*codes.csv is a table; use kind: points"):
        read(mine, "thing")


def test_a_part_without_polygons_is_no_mistake_but_a_region_without_is(study):
    mine = study({"name": "thing", "kind": "fraction", "file": "rocks.gpkg"})
    mine.raw.mkdir(exist_ok=True)
    write_shapes(mine.raw / "rocks.gpkg", [box(WEST, NORTH - 2000, WEST + 2000, NORTH)])
    corner = slice(9, 12), slice(9, 12)
    assert (read(mine, "thing", corner)[0] == 0).all()
    write_shapes(mine.raw / "rocks.gpkg", [box(WEST + 50e3, NORTH - 2000, WEST + 52e3, NORTH)])
    with pytest.raises(ValueError, match="'thing'"):
        read(mine, "thing", corner)


# ---- derived layers


def test_a_derived_layer_is_right_up_to_the_rim(study):
    "Of a plane on coarse pixels that reach beyond the region: 3 and 4 a km are 5 everywhere"
    mine = study(
        {"name": "dip", "file": "dip.tif"}, {"name": "steep", "derive": "hgm", "of": "dip"}
    )
    axis = (np.arange(12) + 0.5) * 1.7 - 4
    values = (3 * axis[None] - 4 * axis[:, None]).astype("float32")
    write_tif(mine.raw / "dip.tif", values, step=1700, west=WEST - 4000, north=NORTH + 4000)
    np.testing.assert_allclose(read(mine, "steep")[0], 5, rtol=1e-5)
    method = "horizontal gradient, central differences; cubic from 1.7 km"
    assert told(mine, "steep") == (["steep"], "continuous", method)


def test_a_derived_layer_is_missing_where_its_parent_ends(study):
    "A raster as large as the region: the rim has no neighbours"
    mine = study(
        {"name": "dip", "file": "dip.tif"}, {"name": "steep", "derive": "hgm", "of": "dip"}
    )
    write_tif(mine.raw / "dip.tif", np.ones((120, 120), "float32"), step=100)
    missing = np.pad(np.zeros((10, 10), bool), 1, constant_values=True)
    np.testing.assert_array_equal(np.isnan(read(mine, "steep")[0]), missing)


def test_a_derived_layer_sees_its_parent_scaled(study):
    "A parent in km times 1000 has gradients in m a km"
    dip = {"name": "dip", "file": "dip.tif", "scale": 1000}
    mine = study(dip, {"name": "steep", "derive": "hgm", "of": "dip"})
    values = np.tile(np.arange(-4, 20, dtype="float32"), (24, 1))
    write_tif(mine.raw / "dip.tif", values, west=WEST - 4000, north=NORTH + 4000)
    np.testing.assert_allclose(read(mine, "steep")[0], 1000, rtol=1e-5)


def test_what_cannot_be_derived_is_told_of_the_layer_and_its_parent(study):
    mine = study(
        {"name": "flat", "file": "flat.tif"}, {"name": "worms", "derive": "worms", "of": "flat"}
    )
    write_tif(mine.raw / "flat.tif", np.ones((12, 12), "float32"))
    with pytest.raises(ValueError, match=r"'worms', worms of 'flat' \(.*flat.tif\): .*no ridge"):
        read(mine, "worms")


def test_worms_see_ridges_outside_the_region(study):
    "A contact 5 km east of the region is 5 km off its eastern edge"
    mine = study(
        {"name": "step", "file": "step.tif"}, {"name": "worms", "derive": "worms", "of": "step"}
    )
    margin = derive.margin("worms", STEP) + 3
    x = np.arange(-margin, 12 + margin) + 0.5
    values = np.tile(np.tanh((x - 17) / 2), (len(x), 1)).astype("float32")
    write_tif(mine.raw / "step.tif", values, west=WEST - margin * STEP, north=NORTH + margin * STEP)
    (plane,) = read(mine, "worms")
    np.testing.assert_allclose(plane[6], (17 - np.arange(12) - 0.5) * 1000, atol=100)


def test_formats_go_by_name(tmp_path):
    for name, form in [("a.GPKG", "vector"), ("a.parquet", "hexagons"), ("a.grd", "raster")]:
        assert kinds.format_of(tmp_path / name) == form


def test_the_grid_of_a_part_is_its_own():
    "What kinds hand to functions that know only grids"
    cells = places.grid("EPSG:32633", (WEST, NORTH), STEP, (12, 12))
    part = places.cut(cells, (slice(9, 12), slice(9, 12)))
    assert part.rio.bounds() == (WEST + 9000, NORTH - 12_000, WEST + 12_000, NORTH - 9000)
