import os

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr

from mpm import conversion, geophysics


@pytest.fixture
def sources(tmp_path, monkeypatch):
    "A folder with every source, tiny: one crust for the globe, a level Earth, a dipole"
    monkeypatch.setattr(geophysics, "CRUST1_SHAPE", (2, 2))
    folder = tmp_path / "raw"
    folder.mkdir()
    tops = [0, 0, 0, -1, -2, -3, -13, -23, -35]
    for part, line in {"bnds": tops, "vp": range(9), "rho": range(9)}.items():
        np.savetxt(folder / f"crust1.{part}", [[*line]] * 4)
    axes = {"latitude": [-90, -45, 45, 90], "longitude": [-180, 0, 180]}
    for kind, names in {"gravity": ("gravity", "height"), "topography": ("topography",)}.items():
        level = {name: (("latitude", "longitude"), np.zeros((4, 3))) for name in names}
        xr.Dataset(level, coords=axes).to_netcdf(folder / f"earth-{kind}-10arcmin.nc")
    for model in ("LCS-1", "MF7"):
        (folder / f"{model}.shc").write_text("1 1 1 1 1\n2015.0\n1 0 9\n1 1 0\n1 -1 0\n")
    (folder / "Combined_HF.txt").write_text("Lon Lat HF\n" + "1.5 2.5 60\n")
    write_deposits(folder)
    return folder


def write_deposits(folder):
    "A point file as published: text in UTF-8 that does not say so, and no index"
    columns = {
        "Type": ["PbZn-MVT", "PbZn-CD", "IOCG"],
        "Deposit": ["Trèves", "Blee", "Olympic Dam"],
        "Lon_": [3.0, -134.0, 136.9],
        "Lat_": [44.0, 64.4, -30.4],
        "Age__Ga_": [0.0, 0.483, 1.592],
        "Ore__Mt_": [0.0, 19.6, 10400.0],
        "Zn_grade__": [3.0, 3.04, 0.0],
        "Pb_grade__": [0.5, 2.8, 0.0],
        "Cu_grade__": [0.0, 0.0, 0.77],
    }
    table = pd.DataFrame(columns)
    places = gpd.points_from_xy(table["Lon_"], table["Lat_"])
    points = gpd.GeoDataFrame(table, geometry=places, crs="EPSG:4326")
    points.to_file(folder / "All_Deposits.shp", encoding="utf-8")
    for suffix in (".shx", ".cpg"):
        (folder / "All_Deposits.shp").with_suffix(suffix).unlink()
    return folder / "All_Deposits.dbf"


def test_every_source_becomes_a_file_that_gis_reads(sources):
    "GeoTIFFs with named bands in EPSG:4326, tables with longitude and latitude"
    outputs = conversion.convert_continental(sources)
    bands = {}
    for path in outputs[:4]:
        with rasterio.open(path) as raster:
            assert (raster.crs.to_epsg(), raster.dtypes[0]) == (4326, "float32")
            assert np.isnan(raster.nodata)
            bands[path.name] = raster.descriptions
            if path.name == "crust1.tif":
                assert tuple(raster.bounds) == (-180, 88, -178, 90)
                assert raster.read(1).tolist() == [[35, 35], [35, 35]]
    assert bands["crust1.tif"][:3] == ("moho_depth", "crustal_thickness", "sediment_thickness")
    assert bands["gravity_anomalies.tif"] == ("disturbance", "bouguer")
    assert bands["magnetic_lcs1.tif"] == bands["magnetic_mf7.tif"] == ("radial_field",)
    for path in outputs[4:]:
        assert {"longitude", "latitude"} < set(pd.read_csv(path).columns)


def test_only_what_is_missing_or_old_is_made_again(sources):
    "Outputs newer than their sources and the code stay; a newer source renews its own alone"
    outputs = conversion.convert_continental(sources)
    later = max(path.stat().st_mtime_ns for path in outputs) + 10**12

    def renewed():
        for path in outputs:
            if path.exists():
                os.utime(path, ns=(later, later))
        conversion.convert_continental(sources)
        return [path.name for path in outputs if path.stat().st_mtime_ns != later]

    assert renewed() == []
    outputs[4].unlink()
    assert renewed() == ["heat_flow.csv"]
    os.utime(sources / "crust1.rho", ns=(later + 1, later + 1))
    assert renewed() == ["crust1.tif"]


def test_two_conversions_are_equal_to_the_byte(sources):
    "Nothing of the clock goes into an output, so checksums of inputs hold"
    first = [path.read_bytes() for path in conversion.convert_continental(sources)]
    for path in conversion.convert_continental(sources):
        path.unlink()
    assert [path.read_bytes() for path in conversion.convert_continental(sources)] == first


def test_a_broken_source_leaves_the_old_output(sources):
    "The error names the source; what was converted before is still there, whole"
    crust = conversion.convert_continental(sources)[0]
    before = crust.read_bytes()
    (sources / "crust1.vp").write_text("1 2 3\n")
    os.utime(crust, ns=(0, 0))
    with pytest.raises(ValueError, match=r"crust1\.vp has 3 numbers"):
        conversion.convert_continental(sources)
    assert crust.read_bytes() == before
    assert not list(sources.glob("*.tmp-*"))


def test_a_missing_source_is_named(sources):
    "With what to do"
    (sources / "MF7.shc").unlink()
    with pytest.raises(FileNotFoundError, match=r"MF7\.shc is missing; fetch the study again"):
        conversion.convert_continental(sources)


def test_heat_flow_keeps_what_can_be(tmp_path):
    "Outside 10 to 250 mW/m2, off the Earth, without a place, or repeated: left out"
    rows = ["1 2 60", "1 2 60", "1 2 61", "3 4 9.9", "3 4 10", "5 6 250", "5 6 251", "7 8 -40"]
    rows += ["181 8 60", "9 91 60", "nan 8 60", "9 nan 60", "9 8 nan"]
    (tmp_path / "flow.txt").write_text("\n".join(["Lon Lat HF", *rows]))
    table = conversion.heat_flow_table(tmp_path / "flow.txt")
    assert list(table.columns) == ["longitude", "latitude", "heat_flow"]
    assert table.to_numpy().tolist() == [[1, 2, 60], [1, 2, 61], [3, 4, 10], [5, 6, 250]]


def test_heat_flow_without_a_column_is_refused(tmp_path):
    "The message lists those there are"
    (tmp_path / "flow.txt").write_text("Lon Lat Q\n1 2 3\n")
    with pytest.raises(ValueError, match=r"flow\.txt has no column HF; it has Lon, Lat, Q"):
        conversion.heat_flow_table(tmp_path / "flow.txt")


def test_deposits_have_types_and_whole_names(tmp_path):
    "Types lose their prefix, a damaged name is mended, 0 means not given, Ga become Ma"
    deposits = conversion.deposit_table(write_deposits(tmp_path))
    assert list(deposits["name"]) == ["Trèves", "Blende", "Olympic Dam"]
    assert list(deposits["type"]) == ["MVT", "CD", "IOCG"]
    assert deposits[["longitude", "latitude"]].to_numpy()[1].tolist() == [-134, 64.4]
    np.testing.assert_array_equal(deposits["age_Ma"], [np.nan, 483, 1592])
    np.testing.assert_array_equal(deposits["ore_Mt"], [np.nan, 19.6, 10400])
    np.testing.assert_array_equal(deposits["zn_percent"], [3, 3.04, np.nan])
    np.testing.assert_array_equal(deposits["cu_percent"], [np.nan, np.nan, 0.77])


def test_reading_deposits_adds_nothing_to_their_folder(tmp_path):
    "The lost index is not made up: it would be one more input, there or not"
    path = write_deposits(tmp_path)
    before = sorted(tmp_path.iterdir())
    conversion.deposit_table(path)
    assert sorted(tmp_path.iterdir()) == before


def test_deposits_without_a_column_are_refused(tmp_path):
    "The message names it"
    points = gpd.GeoDataFrame({"Deposit": ["A"]}, geometry=gpd.points_from_xy([1], [2]), crs=4326)
    points.to_file(tmp_path / "points.shp")
    with pytest.raises(ValueError, match=r"points\.dbf has no column Type, Lon_"):
        conversion.deposit_table(tmp_path / "points.dbf")
