from xml.etree import ElementTree

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pyproj
import pytest
import xarray as xr
from rasterio.transform import from_origin

from mpm import artefacts, targets

# 8 rows x 10 columns of 2 km; what is not written is 0.1
LIKELY = {
    (0, 0): 0.9,
    (1, 1): 0.8,
    (1, 2): 0.8,
    (5, 6): 0.95,
    (5, 7): 0.7,
    (6, 7): 0.7,
    (7, 0): 0.99,
}
SEA = (3, 3)
ORIGIN = ["gravity", "rock", "rock"]


def region(likely=None) -> xr.Dataset:
    "Three areas: a chain of three cells by corners, an angle of three, a lone cell"
    plane = np.full((8, 10), 0.1, "float32")
    for cell, value in (LIKELY if likely is None else likely).items():
        plane[cell] = value
    plane[SEA] = np.nan
    made = xr.Dataset(
        {"likelihood": (("y", "x"), plane), "uncertainty": (("y", "x"), plane / 10)},
        coords={
            "y": 899_000 - 2000.0 * np.arange(8),
            "x": 501_000 + 2000.0 * np.arange(10),
            "layer": ["gravity", "rock=shale", "rock=lime"],
        },
    )
    return made.rio.write_crs(32633).rio.write_transform(from_origin(5e5, 9e5, 2000, 2000))


def deposits(*cells) -> pd.DataFrame:
    "A deposit at the centre of each cell, called A, B, ..."
    rows = [
        {"deposit": k, "name": "ABCD"[k], "row": row, "col": col}
        | {"x": 501_000.0 + 2000 * col, "y": 899_000.0 - 2000 * row}
        for k, (row, col) in enumerate(cells)
    ]
    return pd.DataFrame(rows, columns=["deposit", "name", "row", "col", "x", "y"])


CUBE = region().assign_coords(origin=("layer", ORIGIN))
SHARE = 7 / 79  # seven of the cells that are predicted


def found(made=None, known=None, **options) -> gpd.GeoDataFrame:
    made = region() if made is None else made
    known = deposits((5, 7), (0, 5)) if known is None else known
    options = {"share": SHARE} | options
    return targets.find({"west": made}, {"west": CUBE}, {"west": known}, **options)["west"]


def test_areas_are_joined_over_corners_and_ranked_by_their_peak():
    "Three cells of 4 km2 each; the lone cell is too small, unless it is wanted"
    made = found()
    assert made["rank"].tolist() == [1, 2]
    np.testing.assert_allclose(made["peak"], [0.95, 0.9], rtol=1e-6)
    assert made["area_km2"].tolist() == [12, 12]
    assert found(min_cells=1)["peak"].round(2).tolist() == [0.99, 0.95, 0.9]
    assert found(min_cells=1)["area_km2"].tolist() == [4, 12, 12]
    assert len(found(min_cells=4)) == 0


def test_the_share_counts_predicted_cells():
    "Of 79 cells, not of the 80 of the grid; cells as likely as the last one belong to it"
    assert found(share=3 / 79, min_cells=1)["peak"].round(2).tolist() == [0.99, 0.95, 0.9]
    tied = found(share=4 / 79, min_cells=1)  # the fourth is one of two cells of 0.8
    assert tied["area_km2"].sum() == 4 * 5
    assert len(found(share=0.001, min_cells=1)) == 1  # never none


def test_outlines_follow_the_cells():
    "Valid polygons in the region's CRS, that hold the centres of their cells and no others"
    made = found()
    assert made.crs == region().rio.crs
    assert made.geometry.is_valid.all()
    assert set(made.geometry.geom_type) == {"MultiPolygon"}
    x, y = np.meshgrid(region()["x"], region()["y"])
    for area, cells in zip(
        made.geometry, ({(5, 6), (5, 7), (6, 7)}, {(0, 0), (1, 1), (1, 2)}), strict=True
    ):
        inside = gpd.GeoSeries(gpd.points_from_xy(x.ravel(), y.ravel())).within(area)
        rows, cols = np.nonzero(inside.to_numpy().reshape(8, 10))
        assert set(zip(rows.tolist(), cols.tolist(), strict=True)) == cells


def test_known_deposits_tell_new_ground():
    "One lies inside; the other is 4 km east of the edge of the second area's first row"
    made = found()
    assert made["known"].tolist() == [1, 0] and made["known_names"].tolist() == ["A", ""]
    assert made["nearest"].tolist() == ["A", "B"]
    # B at 511 km east, 899 km north; the nearest corner at 506, 898: 5 and 1 km
    np.testing.assert_allclose(made["nearest_km"], [0, np.hypot(5, 1)], atol=1e-3)


def test_a_deposit_of_several_cells_counts_once():
    "A raster's deposit has a row a cell"
    both = deposits((5, 7), (6, 7)).assign(deposit=0, name="A")
    assert found(known=both)["known"].tolist() == [1, 0]
    assert found(known=both)["known_names"][0] == "A"


def test_without_deposits_all_is_new_ground():
    "No distance instead of a wrong one"
    made = found(known=deposits())
    assert made["known"].tolist() == [0, 0] and made["nearest"].tolist() == ["", ""]
    assert made["nearest_km"].isna().all()


def test_facts_are_those_of_the_cells():
    "Mean uncertainty of three cells, and the place of the peak"
    made = found()
    np.testing.assert_allclose(made["uncertainty"], [0.235 / 3, 0.25 / 3], rtol=1e-5)
    to_degrees = pyproj.Transformer.from_crs(32633, 4326, always_xy=True)
    longitude, latitude = to_degrees.transform(501_000 + 6 * 2000, 899_000 - 5 * 2000)
    np.testing.assert_allclose(made["longitude"][0], longitude, atol=1e-4)
    np.testing.assert_allclose(made["latitude"][0], latitude, atol=1e-4)
    assert found(region().drop_vars("uncertainty"))["uncertainty"].isna().all()


def explained() -> xr.Dataset:
    "Of the first area two cells are explained, of the second none"
    plane = np.full((3, 8, 10), np.nan, "float32")
    plane[:, 5, 6] = [0.1, 0.6, -0.4]
    plane[:, 5, 7] = [0.2, 0.8, -0.9]
    return region().assign(attribution=(("layer", "y", "x"), plane))


def test_leading_layers_speak_for_the_target():
    "Classes of a layer are summed: gravity 0.15, rock 0.05 on average; nothing where unknown"
    assert found(explained())["leading"].tolist() == ["gravity, rock", ""]
    against = explained()
    against["attribution"][2] = -1.0  # rock now speaks against it
    assert found(against)["leading"][0] == "gravity"
    assert found()["leading"].tolist() == ["", ""]


def test_at_most_three_layers_lead():
    values = pd.Series({"a": 0.1, "b": 0.4, "c": -0.9, "d": 0.2, "e": np.nan, "f": 0.3})
    assert targets.leading(values) == ["b", "f", "d"]


@pytest.mark.parametrize("share", [0, 1, 2])
def test_a_share_beyond_0_and_1_is_refused(share):
    with pytest.raises(ValueError, match=f"share {share} must lie between 0 and 1"):
        found(share=share)


def test_an_empty_map_is_refused():
    with pytest.raises(ValueError, match="'west': no cell of its map is predicted"):
        found(region() * np.nan)


def test_a_geopackage_holds_a_layer_a_region(tmp_path):
    "Read back as they were, the same bytes again, with a style of the same name"
    place = tmp_path / "maps" / "targets.gpkg"
    own = {"west": found(), "east": found(min_cells=1)}
    targets.write(own, place)
    assert pyogrio.list_layers(place)[:, 0].tolist() == ["west", "east"]
    for name, made in own.items():
        read = gpd.read_file(place, layer=name)
        assert read.crs == made.crs and list(read.columns) == list(made.columns)
        assert read.geometry.geom_equals(made.geometry).all()
        pd.testing.assert_frame_equal(
            pd.DataFrame(read.drop(columns="geometry")).replace({None: ""}),
            pd.DataFrame(made.drop(columns="geometry")),
            check_dtype=False,
        )
    before = artefacts.sha256(place)
    targets.write(own, place)
    assert artefacts.sha256(place) == before
    ElementTree.parse(place.with_suffix(".qml"))


def test_the_table_names_region_and_rank():
    "The first ones of each region, without geometry"
    made = targets.table({"west": found(), "east": found(min_cells=1)}, count=2)
    assert made["region"].tolist() == ["west", "west", "east", "east"]
    assert made["rank"].tolist() == [1, 2, 1, 2]
    assert list(made.columns) == ["region", *targets.COLUMNS]
    assert made["peak"].tolist()[:2] == pytest.approx([0.95, 0.9])
