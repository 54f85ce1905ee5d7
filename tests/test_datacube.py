import geopandas as gpd
import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from shapely.geometry import box

from mpm import datacube
from mpm.study import Study

WEST, NORTH = 500_000, 5_006_000
SQUARE = {"crs": "EPSG:32633", "resolution": 1000, "bounds": (WEST, NORTH - 6000, 506_000, NORTH)}
COLUMNS = np.tile(np.arange(6, dtype="float32"), (6, 1))


def make_study(folder, layers, *, area=None) -> Study:
    "A study of 6 x 6 cells of 1 km with a raster a layer"
    study = Study(
        name="mine",
        regions={"here": SQUARE | {"area": area}},
        layers=[
            {"name": name, "group": "geophysics", "units": "nT", "file": f"{name}.tif"}
            for name in layers
        ],
        deposits={"file": "deposits.csv"},
        targets={"MVT": {}},
        path=folder / "mine.yaml",
    )
    study.raw.mkdir(exist_ok=True)
    profile = {"driver": "GTiff", "count": 1, "height": 6, "width": 6, "dtype": "float32"}
    profile |= {"crs": "EPSG:32633", "transform": Affine(1000, 0, WEST, 0, -1000, NORTH)}
    for name, values in layers.items():
        with rasterio.open(study.raw / f"{name}.tif", "w", **profile) as target:
            target.write(values, 1)
    return study


def without(*columns):
    "A raster that holds its column numbers, some columns missing"
    return np.where(np.isin(COLUMNS, columns), np.nan, COLUMNS).astype("float32")


@pytest.fixture
def study(tmp_path):
    "Column 0 has 1 of 4 layers, column 1 has 2, the others all"
    return make_study(
        tmp_path, {"a": COLUMNS, "b": without(0), "c": without(0, 1), "d": without(0, 1)}
    )


@pytest.fixture
def cube(study):
    return datacube.build(study, "here")


def test_cell_is_valid_with_half_of_the_layers(cube):
    "One of four layers is too few, two are enough; what is missing stays missing"
    np.testing.assert_array_equal(cube["valid"], [[False, True, True, True, True, True]] * 6)
    assert cube["valid"].dtype == bool and cube["evidence"].dtype == "float32"
    np.testing.assert_array_equal(np.isnan(cube["evidence"]).sum("layer")[0], [3, 2, 0, 0, 0, 0])
    np.testing.assert_array_equal(cube["evidence"].sel(layer="b"), without(0))


def test_cube_says_what_its_layers_are(cube):
    assert cube["layer"].values.tolist() == list("abcd")
    assert set(cube["group"].values) == {"geophysics"}
    assert set(cube["units"].values) == {"nT"}
    assert set(cube["kind"].values) == {"continuous"}
    assert set(cube["method"].values) == {"bilinear"}
    assert cube.attrs == {"study": "mine", "region": "here"}
    assert cube.rio.crs.to_epsg() == 32633
    assert cube.rio.transform() == Affine(1000, 0, WEST, 0, -1000, NORTH)


def test_cells_outside_the_area_hold_nothing(tmp_path):
    "A permit over columns 1 to 3 leaves evidence and valid cells there only"
    study = make_study(tmp_path, {"a": COLUMNS, "b": COLUMNS}, area="permit.gpkg")
    permit = box(WEST + 1000, NORTH - 6000, WEST + 4000, NORTH)
    gpd.GeoDataFrame(geometry=[permit], crs="EPSG:32633").to_file(study.raw / "permit.gpkg")
    cube = datacube.build(study, "here")
    inside = np.isin(COLUMNS, (1, 2, 3))
    np.testing.assert_array_equal(cube["valid"], inside)
    np.testing.assert_array_equal(np.isfinite(cube["evidence"]).all("layer"), inside)


def test_cube_without_a_valid_cell_is_refused(tmp_path):
    "All missing but one layer of three"
    nothing = np.full((6, 6), np.nan, "float32")
    study = make_study(tmp_path, {"a": COLUMNS, "b": nothing, "c": nothing})
    with pytest.raises(ValueError, match="region 'here': no cell has half of the layers"):
        datacube.build(study, "here")


def test_missing_layer_stops_the_cube(study):
    (study.raw / "b.tif").unlink()
    with pytest.raises(FileNotFoundError, match="'b': .*b.tif is missing"):
        datacube.build(study, "here")


# ---- on disk


def test_cube_comes_back_as_it_was_written(cube, tmp_path):
    "Values, types, coordinates, attributes and CRS; and writing leaves the cube alone"
    before = cube.copy(deep=True)
    datacube.write(cube, tmp_path / "here.zarr")
    back = datacube.read(tmp_path / "here.zarr")
    xr.testing.assert_identical(cube, before)
    xr.testing.assert_identical(back, before)
    assert {name: back[name].dtype for name in back.data_vars} == {
        "evidence": np.dtype("float32"),
        "valid": np.dtype(bool),
    }
    assert back.rio.crs == before.rio.crs and back.rio.transform() == before.rio.transform()


def test_cube_that_was_read_can_be_written_again(cube, tmp_path):
    "Chunks and codecs of the first file do not stand in the way of the second"
    datacube.write(cube, tmp_path / "one.zarr")
    datacube.write(datacube.read(tmp_path / "one.zarr"), tmp_path / "two.zarr")
    xr.testing.assert_identical(datacube.read(tmp_path / "two.zarr"), cube)


def test_new_cube_replaces_the_old_one(cube, tmp_path):
    datacube.write(cube, tmp_path / "here.zarr")
    datacube.write(cube.isel(layer=[0]), tmp_path / "here.zarr")
    assert datacube.read(tmp_path / "here.zarr")["layer"].values.tolist() == ["a"]
    assert sorted(path.name for path in tmp_path.glob("*zarr*")) == ["here.zarr"]


def test_interrupted_write_leaves_the_old_cube(cube, tmp_path, monkeypatch):
    "The disk fills up half-way: the old cube reads as before, and no rubbish is left"
    place = tmp_path / "here.zarr"
    datacube.write(cube, place)

    def fill_up(self, store, **_):
        store.mkdir()
        (store / ".zgroup").write_text("{")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(xr.Dataset, "to_zarr", fill_up)
        with pytest.raises(OSError, match="no space left"):
            datacube.write(cube.isel(layer=[0]), place)
    xr.testing.assert_identical(datacube.read(place), cube)
    assert sorted(path.name for path in tmp_path.glob("*zarr*")) == ["here.zarr"]


def test_missing_cube_says_which_notebook_writes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="here.zarr is missing; run notebook 01_data"):
        datacube.read(tmp_path / "here.zarr")


def cut_metadata(place):
    (place / ".zmetadata").write_text("{")


def no_metadata(place):
    for path in place.glob(".z*"):
        path.unlink()


def cut_chunk(place):
    path = place / "evidence" / "0.0.0"
    path.write_bytes(path.read_bytes()[:20])


def scrambled_chunk(place):
    (place / "evidence" / "0.0.0").write_bytes(bytes(range(256)))


def not_a_folder(place):
    for path in sorted(place.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    place.rmdir()
    place.write_text("a file")


@pytest.mark.parametrize(
    "damage", [cut_metadata, no_metadata, cut_chunk, scrambled_chunk, not_a_folder]
)
def test_damaged_cube_says_which_notebook_to_run_again(cube, tmp_path, damage):
    datacube.write(cube, tmp_path / "here.zarr")
    damage(tmp_path / "here.zarr")
    with pytest.raises(ValueError, match=r"here.zarr is damaged .*run notebook 01_\w+ again"):
        datacube.read(tmp_path / "here.zarr")


def test_cubes_of_a_study_are_read_by_region(study, cube):
    datacube.write(cube, datacube.path(study, "here"))
    cubes = datacube.read_cubes(study)
    assert list(cubes) == ["here"]
    xr.testing.assert_identical(cubes["here"], cube)


def test_coverage_tells_range_and_gaps_of_the_valid_cells(cube):
    "Valid columns 1 to 5: layer a holds 1..5, layer c misses one column of five"
    table = datacube.coverage({"here": cube}).set_index("layer")
    assert table.loc["a", ["missing", "min", "median", "max"]].tolist() == [0, 1, 3, 5]
    assert table.loc["c", ["missing", "min", "median", "max"]].tolist() == [20, 2, 3.5, 5]
    assert table.loc["a", ["group", "region", "units"]].tolist() == ["geophysics", "here", "nT"]


# ---- for a GIS


def big_planes(side=600):
    "Two planes on a grid of 1 km: column numbers, and row numbers with a gap"
    rows, cols = np.indices((side, side), dtype="float32")
    rows[:100, :100] = np.nan
    planes = xr.DataArray(
        np.stack([cols, rows]),
        dims=("layer", "y", "x"),
        coords={"y": NORTH - 1000 * (np.arange(side) + 0.5), "x": 1000 * (np.arange(side) + 0.5)},
    )
    return planes.rio.write_crs("EPSG:32633")


def test_geotiff_is_cloud_optimized_and_names_its_bands(tmp_path):
    "Tiled, with overviews that hold values, nodata, CRS and the values themselves"
    planes = big_planes()
    datacube.write_geotiff(planes, tmp_path / "map.tif", names=["likelihood", "spread"])
    with rasterio.open(tmp_path / "map.tif") as source:
        assert source.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert source.profile["tiled"] and source.overviews(1) and source.overviews(2)
        assert source.descriptions == ("likelihood", "spread")
        assert np.isnan(source.nodata) and source.crs.to_epsg() == 32633
        assert source.transform == Affine(1000, 0, 0, 0, -1000, NORTH)
        np.testing.assert_array_equal(source.read(), planes.values)
        small = source.read(1, out_shape=(300, 300))
        np.testing.assert_allclose(small[0], np.arange(0.5, 600, 2))
    assert [path.name for path in tmp_path.iterdir()] == ["map.tif"]


def test_planes_of_a_cube_become_a_geotiff(cube, tmp_path):
    "The CRS travels with the cube's evidence, and gaps are nodata"
    datacube.write(cube, tmp_path / "here.zarr")
    evidence = datacube.read(tmp_path / "here.zarr")["evidence"]
    datacube.write_geotiff(evidence, tmp_path / "map.tif", names=list("abcd"))
    with rasterio.open(tmp_path / "map.tif") as source:
        assert source.descriptions == tuple("abcd") and source.crs.to_epsg() == 32633
        assert source.read(2, masked=True).mask[:, 0].all()
        np.testing.assert_array_equal(source.read(1), COLUMNS)
