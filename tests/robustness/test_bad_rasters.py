"""Rasters and NetCDF files that cannot be used, through `mpm check`."""

from functools import partial

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from bad_inputs import Bad, cut, edit, judge
from ground import SIZE, write_depth
from helpers import write_tif

ONES = np.ones((SIZE, SIZE), "float32")


def raster(values=ONES, **profile):
    "Put another raster in the place of gravity.tif"
    return lambda home: write_tif(home / "data" / "gravity.tif", values, **profile)


def other(name, content):
    "Put other bytes in the place of a file"
    return lambda home: (home / "data" / name).write_bytes(content)


def depth(change):
    "Change the NetCDF file"

    def spoil(home):
        path = home / "data" / "depth.nc"
        grid = xr.load_dataset(path, decode_coords=False)
        path.unlink()
        change(grid).to_netcdf(path, engine="h5netcdf")

    return spoil


def flat(home):
    "A GeoTIFF whose pixels have no height"
    with rasterio.open(home / "data" / "gravity.tif", "r+") as file:
        file.transform = Affine(1000, 0, 500_000, 0, 0, 5_006_000)


def no_data(home):
    raster(np.full_like(ONES, -9999), nodata=-9999)(home)


GRAVITY = ("'gravity'", "gravity.tif")
DEPTH = ("'depth'", "depth.nc")
Raster, Grid = partial(Bad, "raster"), partial(Bad, "NetCDF")
RASTERS = [
    Raster("missing", lambda home: (home / "data/gravity.tif").unlink(), [*GRAVITY, "is missing"]),
    Raster("cut short", cut("data/gravity.tif", 0.4), [*GRAVITY, "cannot be read"]),
    Raster("empty", other("gravity.tif", b""), [*GRAVITY, "cannot be read"]),
    Raster("text", other("gravity.tif", b"not a raster"), [*GRAVITY, "cannot be read"]),
    Raster("a folder", lambda home: folder(home / "data/gravity.tif"), [*GRAVITY, "folder"]),
    Raster("no CRS", raster(crs=None), [*GRAVITY, "no CRS; name it under `crs`"]),
    Raster("wrong CRS: elsewhere", raster(crs="EPSG:32733"), [*GRAVITY, "does not touch", "CRS"]),
    Raster("wrong CRS: degrees", raster(crs="EPSG:4326"), [*GRAVITY, "correct its CRS"]),
    Raster(
        "a CRS that the study contradicts",
        edit("toy.yaml", "file: gravity.tif", 'file: gravity.tif, crs: "EPSG:3857"'),
        [*GRAVITY, "states its own CRS", "leave `crs` out"],
    ),
    Raster("nodata only", no_data, [*GRAVITY, "has no value in the region"]),
    Raster("infinite only", raster(ONES * np.inf), [*GRAVITY, "has no value in the region"]),
    Raster("NaN only", raster(ONES * np.nan), [*GRAVITY, "has no value in the region"]),
    Raster("pixels without height", flat, [*GRAVITY, "pixels of 1000 x 0; warp it"]),
    Raster(
        "rotated",
        raster(transform=Affine(900, 300, 5e5, 300, -900, 5e6)),
        [*GRAVITY, "rotated; warp it north up"],
    ),
    Raster(
        "pixels that are not square",
        raster(transform=Affine(1000, 0, 5e5, 0, -500, 5.006e6)),
        [*GRAVITY, "warp it to square ones"],
    ),
    Raster("not georeferenced", raster(transform=Affine.identity()), [*GRAVITY, "georeference it"]),
    Raster("complex numbers", raster(ONES.astype("complex64")), [*GRAVITY, "complex"]),
    Raster(
        "a band it has not",
        edit("toy.yaml", "file: gravity.tif", "file: gravity.tif, band: 3"),
        [*GRAVITY, "no band 3 of 1"],
    ),
    Raster(
        "a vector file by its name",
        lambda home: rename(home, "gravity.tif", "gravity.gpkg"),
        ["'gravity'", "gravity.gpkg", "name its `kind`"],
    ),
    Raster(
        "a table by its name",
        lambda home: rename(home, "gravity.tif", "gravity.csv"),
        ["'gravity'", "gravity.csv", "use kind: points"],
    ),
    Raster(
        "numbers taken for classes",
        edit("toy.yaml", "file: gravity.tif", "file: gravity.tif, kind: categorical"),
        [*GRAVITY, "use kind: continuous"],
    ),
]
GRIDS = [
    Grid("cut short", cut("data/depth.nc", 0.5), [*DEPTH, "cannot be read"]),
    Grid("its header only", cut("data/depth.nc", 0.02), [*DEPTH, "cannot be read"]),
    Grid(
        "several variables",
        depth(lambda grid: grid.assign(other=grid["depth"] * 2)),
        [*DEPTH, "name one under `variable`", "other"],
    ),
    Grid(
        "no CRS",
        depth(lambda grid: grid.drop_vars("crs").assign(depth=grid["depth"].drop_attrs())),
        [*DEPTH, "no CRS; name it under `crs`"],
    ),
    Grid(
        "uneven rows",
        depth(lambda grid: grid.assign_coords(y=grid["y"] - np.arange(SIZE) ** 2)),
        [*DEPTH, "unevenly spaced along y", "regular grid"],
    ),
    Grid(
        "one row", depth(lambda grid: grid.isel(y=slice(1))), [*DEPTH, "fewer than two", "along y"]
    ),
    Grid("no coordinates", depth(lambda grid: grid.drop_vars(["x", "y"])), [*DEPTH, "no variable"]),
    Grid(
        "text for numbers",
        depth(lambda grid: grid.assign(depth=grid["depth"].astype("U"))),
        [*DEPTH, "text"],
    ),
    Grid(
        "no value in its valid range",
        lambda home: write_depth(home / "data/depth.nc", 9 * ONES, valid_min=np.float32(10)),
        [*DEPTH, "has no value in the region"],
    ),
]


def folder(path):
    path.unlink()
    path.mkdir()


def rename(home, one, other):
    (home / "data" / one).rename(home / "data" / other)
    edit("toy.yaml", one, other)(home)


@pytest.mark.parametrize("bad", RASTERS + GRIDS, ids=str)
def test_a_bad_raster_is_named_and_harms_nothing(bad, home, capsys, record_property):
    "Layer and file are named with what to do, and earlier results stay"
    judge(bad, home, capsys, record_property)
