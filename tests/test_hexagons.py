"""Tables of H3 hexagons: neighbours as the library has them, and one look-up a grid."""

import os

import h3.api.basic_int as h3
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rioxarray  # noqa: F401
import xarray as xr
from affine import Affine
from rasterio.warp import transform

from mpm import hexagons

CENTRE = 0x8712E579BFFFFFF  # in Alberta: 54.49722 N, 115.01814 W
# the cells around it; the first four are printed next to it in the published table
AROUND = [0x8712E579AFFFFFF, 0x8712E56B4FFFFFF, 0x8712E56B5FFFFFF, 0x8712E56A6FFFFFF]
AROUND += [0x8712E5799FFFFFF, 0x8712E5798FFFFFF]
BOXES = {"north america": (-170, -52, 24, 83), "australia": (113, 154, -44, -10)}


def points(box: tuple, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    west, east, south, north = box
    return rng.uniform(west, east, count), rng.uniform(south, north, count)


def grid_around(lon: float, lat: float, *, crs: str, step: float, size: int) -> xr.DataArray:
    "A grid of size x size cells whose middle cell is centred on the point (in units of the CRS)"
    west, north = lon - step * size / 2, lat + step * size / 2
    axes = {
        "y": north - step * (np.arange(size) + 0.5),
        "x": west + step * (np.arange(size) + 0.5),
    }
    cells = xr.DataArray(np.zeros((size, size), "float32"), axes, ("y", "x")).rio.write_crs(crs)
    return cells.rio.write_transform(Affine(step, 0, west, 0, -step, north))


@pytest.fixture
def degrees():
    "7 x 7 cells of 0.01 degrees around the centre of the Alberta cell"
    latitude, longitude = h3.cell_to_latlng(CENTRE)
    return grid_around(longitude, latitude, crs="EPSG:4326", step=0.01, size=7)


@pytest.fixture
def write(tmp_path):
    "Write a table of hexagons: by default the Alberta cell and the six around it, in that order"

    def write_table(name="table.parquet", cells=(CENTRE, *AROUND), **columns):
        path = tmp_path / name
        pq.write_table(pa.table({"H3_Address": pa.array(cells, pa.uint64()), **columns}), path)
        return path

    return write_table


@pytest.fixture
def table(write):
    return write(
        depth=pa.array([10.0, 1, 2, 3, 4, None, float("inf")], pa.float32()),
        count=pa.array([7, 1, 2, 3, 4, 5, None], pa.int16()),
        shale=pa.array([True, False, None, True, True, True, True]),
        rock=pa.array(["marl", "dolomite, sandy", None, *["marl"] * 4]).dictionary_encode(),
    )


def under(cells: xr.DataArray, row: int, col: int) -> int:
    return h3.latlng_to_cell(float(cells.y[row]), float(cells.x[col]), 7)


# neighbours


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_neighbours_are_those_of_the_library(box):
    "Random cells on both continents; Australia's west lies in a base cell with a pentagon"
    cells = hexagons.cells_at(*points(box, 500), 7)
    for cell, found in zip(cells.tolist(), hexagons.neighbours(cells).tolist(), strict=True):
        assert len(set(found)) == 6 and set(found) == set(h3.grid_disk(cell, 1)) - {cell}


@pytest.mark.parametrize("resolution", [0, 1, 2, 7, 8])
def test_steps_across_the_rim_of_a_base_cell_are_right(resolution):
    "At even and odd resolutions; at coarse ones every cell is at a rim"
    cells = hexagons.cells_at(*points((-180, 180, -80, 85), 400), resolution)
    for cell, found in zip(cells.tolist(), hexagons.neighbours(cells).tolist(), strict=True):
        assert set(found) - {0} == set(h3.grid_disk(cell, 1)) - {cell}


def test_only_few_cells_are_left_to_the_library(monkeypatch):
    "Of 16,807 cells that fill a hexagon inside a base cell, none is"
    monkeypatch.setattr(hexagons.h3, "grid_disk", lambda *_: pytest.fail("asked the library"))
    parent = h3.cell_to_parent(CENTRE, 4)
    inside = np.array(h3.cell_to_children(h3.cell_to_center_child(parent, 5), 7), "uint64")
    assert CENTRE not in inside and hexagons.neighbours(inside).all()


def test_a_pentagon_has_five_neighbours():
    "The sixth is 0"
    pentagon = 0x87A600000FFFFFF  # off Western Australia
    found = hexagons.neighbours(np.array([pentagon], "uint64"))[0].tolist()
    assert found.count(0) == 1
    assert set(found) - {0} == set(h3.grid_disk(pentagon, 1)) - {pentagon}


def test_the_printed_rows_of_the_published_table_touch():
    "The first five addresses known of it, in one clump"
    found = hexagons.neighbours(np.array([CENTRE], "uint64"))[0]
    assert sorted(found.tolist()) == sorted(AROUND)


def test_neighbours_of_nothing_are_none():
    "An empty list keeps its second dimension"
    assert hexagons.neighbours(np.empty(0, "uint64")).shape == (0, 6)


def test_neighbours_of_two_resolutions_are_refused():
    "Their steps differ"
    mixed = np.array([CENTRE, h3.cell_to_parent(CENTRE, 6)], "uint64")
    with pytest.raises(ValueError, match=r"resolutions \[6, 7\]"):
        hexagons.neighbours(mixed)


# looking up


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
def test_points_fall_into_the_cells_that_the_library_names(box):
    "Point by point"
    longitude, latitude = points(box, 1000)
    cells = hexagons.cells_at(longitude, latitude, 7)
    one_by_one = [h3.latlng_to_cell(*place, 7) for place in zip(latitude, longitude, strict=True)]
    assert cells.tolist() == one_by_one


def test_a_point_that_is_nowhere_has_no_cell():
    "Projections give infinity outside their range"
    cells = hexagons.cells_at(np.array([[-115.018, np.inf]]), np.array([[54.497, np.nan]]), 7)
    assert cells.tolist() == [[CENTRE, 0]]


def test_rows_are_found_in_a_table_in_any_order(monkeypatch):
    "-1 where a cell is not there; also when more are wanted than are looked up at a time"
    monkeypatch.setattr(hexagons, "CHUNK", 2)
    table = np.array([50, 10, 40], "uint64")
    wanted = np.array([[10, 99, 50], [40, 0, 10]], "uint64")
    assert hexagons.find(wanted, table).tolist() == [[1, -1, 0], [2, -1, 1]]
    assert hexagons.find(wanted, table[:0]).tolist() == [[-1] * 3] * 2


def test_a_cell_twice_is_refused():
    "The message names it"
    table = np.array([CENTRE, AROUND[0], CENTRE], "uint64")
    with pytest.raises(ValueError, match="8712e579bffffff twice"):
        hexagons.find(table, table)


# on a grid


def test_each_cell_takes_the_hexagon_under_its_centre(table, degrees):
    "Pixel by pixel, against the library"
    rows = {CENTRE: 10.0} | dict(zip(AROUND, [1, 2, 3, 4, np.nan, np.nan], strict=True))
    found = hexagons.on_grid(table, "depth", degrees)
    expected = [[rows.get(under(degrees, y, x), np.nan) for x in range(7)] for y in range(7)]
    assert found.dtype == np.float32 and found[3, 3] == 10
    np.testing.assert_array_equal(found, np.array(expected, "float32"))
    assert {1, 2, 10} <= set(found[np.isfinite(found)])


def test_a_projected_grid_sees_the_same_hexagons(table):
    "The middle of the grid is the middle of the Alberta cell; 20 km away there is no hexagon"
    latitude, longitude = h3.cell_to_latlng(CENTRE)
    (x,), (y,) = transform("EPSG:4326", "ESRI:102008", [longitude], [latitude])
    cells = grid_around(x, y, crs="ESRI:102008", step=250.0, size=161)
    found = hexagons.on_grid(table, "count", cells)
    assert found[80, 80] == 7 and np.isnan(found[0, 0])
    area = sum(h3.cell_area(cell) for cell in [CENTRE, *AROUND[:5]])  # km2, 16 cells each
    assert np.isfinite(found).sum() == pytest.approx(16 * area, rel=0.02)


def test_booleans_become_0_and_1(table, degrees):
    "Missing ones stay missing"
    found = hexagons.on_grid(table, "shale", degrees)
    known = {CENTRE: 1.0, AROUND[0]: 0.0, AROUND[1]: np.nan}
    for (y, x), value in np.ndenumerate(found):
        cell = under(degrees, y, x)
        if cell in known:
            np.testing.assert_array_equal(value, known[cell])


def test_classes_come_as_numbers(table, degrees):
    "-1 where there is no hexagon or no text"
    found, classes = hexagons.classes_on_grid(table, "rock", degrees)
    assert classes == ["dolomite, sandy", "marl"] and found.dtype == np.int32
    known = {CENTRE: 1, AROUND[0]: 0, AROUND[1]: -1}
    for (y, x), value in np.ndenumerate(found):
        cell = under(degrees, y, x)
        assert value == known.get(cell, 1 if cell in AROUND else -1)


def test_text_is_no_number(table, degrees, monkeypatch):
    "Which is told before anything is looked up"
    monkeypatch.setattr(hexagons, "rows_on_grid", None)
    with pytest.raises(ValueError, match="'rock' holds text; use kind: categorical"):
        hexagons.on_grid(table, "rock", degrees)


def test_the_look_up_is_done_once_for_all_columns(table, degrees, monkeypatch):
    "And again when the file has changed"
    asked = []
    cells_at = hexagons.cells_at
    monkeypatch.setattr(hexagons, "cells_at", lambda *a: asked.append(1) or cells_at(*a))
    for column in ("depth", "count", "shale"):
        hexagons.on_grid(table, column, degrees)
    hexagons.classes_on_grid(table, "rock", degrees)
    assert len(asked) == 1
    changed = pq.read_table(table).slice(1)
    pq.write_table(changed, table)
    os.utime(table, ns=(1, 1))
    assert np.isnan(hexagons.on_grid(table, "depth", degrees)[3, 3]) and len(asked) == 2


def test_what_is_kept_is_bounded(table, monkeypatch):
    "Room for two grids of 7 x 7 rows of 4 bytes: the first of three is dropped"
    monkeypatch.setattr(hexagons, "_KEPT", kept := {})
    monkeypatch.setattr(hexagons, "KEPT", 2 * 7 * 7 * 4)
    for longitude in (-115.0, -114.9, -114.8):
        cells = grid_around(longitude, 54.5, crs="EPSG:4326", step=0.01, size=7)
        hexagons.on_grid(table, "depth", cells)
    assert len(kept) == 2


def test_a_part_of_a_grid_has_the_values_of_the_whole(table, degrees):
    "Although it inherits the transform of the whole"
    whole = hexagons.on_grid(table, "count", degrees)
    part = hexagons.on_grid(table, "count", degrees[2:6, 1:5])
    np.testing.assert_array_equal(part, whole[2:6, 1:5])


def test_an_empty_table_is_missing_everywhere(write, degrees):
    "Numbers and text"
    path = write(cells=[], depth=pa.array([], pa.float32()), rock=pa.array([], pa.string()))
    assert np.isnan(hexagons.on_grid(path, "depth", degrees)).all()
    found, classes = hexagons.classes_on_grid(path, "rock", degrees)
    assert (found == -1).all() and classes == []


def test_classes_are_those_that_occur_sorted(table, write):
    "Of text and of whole numbers; classes that no row has are none"
    rock = pa.DictionaryArray.from_arrays(pa.array([1, 1, None, 0, 0, 0, 0]), ["b", "a", "unused"])
    assert hexagons.classes(write("rocks.parquet", rock=rock), "rock") == ["a", "b"]
    assert hexagons.classes(table, "rock") == ["dolomite, sandy", "marl"]
    assert hexagons.classes(table, "count") == [1, 2, 3, 4, 5, 7]
    with pytest.raises(ValueError, match=r"'depth' holds numbers \(float\), not classes"):
        hexagons.classes(table, "depth")


def test_classes_of_several_row_groups_are_put_together(tmp_path):
    "Each row group numbers its classes anew"
    path = tmp_path / "groups.parquet"
    parts = [pa.array(part).dictionary_encode() for part in (["x", "b"], ["b", "a"])]
    cells = [CENTRE, *AROUND[:3]]
    with pq.ParquetWriter(
        path, pa.schema({"H3_Address": pa.uint64(), "rock": parts[0].type})
    ) as out:
        for k, part in enumerate(parts):
            own = pa.array(cells[2 * k : 2 * k + 2], pa.uint64())
            out.write_table(pa.table({"H3_Address": own, "rock": part}))
    codes, texts = hexagons.read_codes(path, "rock")
    assert texts == ["a", "b", "x"] and codes.tolist() == [2, 1, 1, 0]


# errors


def test_a_column_that_is_not_there_gives_the_nearest_names(table, degrees):
    "Of those the file has"
    with pytest.raises(ValueError, match="has no column 'dept'; nearest: depth"):
        hexagons.on_grid(table, "dept", degrees)
    with pytest.raises(ValueError, match="it has H3_Address, depth, count, shale, rock"):
        hexagons.classes(table, "zzz")


def test_a_label_cannot_be_evidence(tmp_path, degrees):
    "Columns are marked as labels in the file itself"
    marked = pa.field("Training", pa.bool_(), metadata=hexagons.LABEL | {b"units": b""})
    schema = pa.schema([pa.field("H3_Address", pa.uint64()), marked])
    path = tmp_path / "labelled.parquet"
    cells = [pa.array([CENTRE], pa.uint64()), pa.array([True])]
    pq.write_table(pa.table(cells, schema=schema), path)
    for look in (lambda: hexagons.on_grid(path, "Training", degrees),
                 lambda: hexagons.classes(path, "Training")):  # fmt: skip
        with pytest.raises(ValueError, match="'Training' is a label or made from one"):
            look()


def test_tables_that_are_no_hexagons_are_refused(tmp_path, write, degrees):
    "No key, a key of text, a missing key, two resolutions, a cell twice"
    depth = {"depth": pa.array([1.0, 2.0])}
    pq.write_table(pa.table(depth), tmp_path / "none.parquet")
    with pytest.raises(ValueError, match="no column 'H3_Address'"):
        hexagons.on_grid(tmp_path / "none.parquet", "depth", degrees)
    text = pa.table({"H3_Address": ["8712e579bffffff", "8712e579affffff"], **depth})
    pq.write_table(text, tmp_path / "text.parquet")
    with pytest.raises(ValueError, match="H3_Address is string; write the cells as unsigned"):
        hexagons.on_grid(tmp_path / "text.parquet", "depth", degrees)
    with pytest.raises(ValueError, match="1 rows have no H3_Address"):
        hexagons.on_grid(write(cells=[CENTRE, None], **depth), "depth", degrees)
    coarse = h3.cell_to_parent(CENTRE, 6)
    with pytest.raises(ValueError, match=r"two.parquet has hexagons of resolutions \[6, 7\]"):
        hexagons.on_grid(write("two.parquet", cells=[CENTRE, coarse], **depth), "depth", degrees)
    with pytest.raises(ValueError, match="twice.parquet holds hexagon 8712e579bffffff twice"):
        hexagons.on_grid(write("twice.parquet", cells=[CENTRE] * 2, **depth), "depth", degrees)
