import json
import os

import numpy as np
import pandas as pd
import pytest
import rasterio

from mpm import prospectmap

CUBE = {
    "nx": 3,
    "ny": 2,
    "box": {"west": 0, "south": 10, "east": 6, "north": 14, "crs": "EPSG:4326"},
    "layers": [{"id": "mag", "name": "Magnetics", "values": [0, 0.25, 0.5, None, 1, 0.125]}],
    "depositIdx": [2, 3],
}


@pytest.fixture
def cube(tmp_path):
    path = tmp_path / "cube.json"
    path.write_text(json.dumps(CUBE))
    return path


def test_a_cube_becomes_rasters_and_a_table(cube, tmp_path):
    "Two rows of three cells: the first row is north, null is missing, centres are right"
    tif, table = prospectmap.convert_cube(cube, tmp_path / "out")
    with rasterio.open(tif) as raster:
        values = raster.read(1)
        assert (raster.crs.to_epsg(), raster.dtypes[0]) == (4326, "float32")
        assert np.isnan(raster.nodata)
        assert tuple(raster.bounds) == (0, 10, 6, 14)
        assert raster.compression.value.lower() == "deflate"
    np.testing.assert_array_equal(values, [[0, 0.25, 0.5], [np.nan, 1, 0.125]])
    expected = {"longitude": [5, 1], "latitude": [13, 11], "row": [0, 1], "col": [2, 0]}
    expected = pd.DataFrame(expected).assign(type="MVT_CD")
    pd.testing.assert_frame_equal(pd.read_csv(table), expected, check_dtype=False)


def test_a_cube_is_converted_only_when_needed(cube, tmp_path):
    "Again when an output is missing or older than the cube, else not"
    outputs = prospectmap.convert_cube(cube, tmp_path)
    later = cube.stat().st_mtime_ns + 10**9

    def converted():
        for path in outputs:
            if path.exists():
                os.utime(path, ns=(later, later))
        prospectmap.convert_cube(cube, tmp_path)
        return [path.stat().st_mtime_ns != later for path in outputs]

    assert converted() == [False, False]
    outputs[0].unlink()
    assert converted() == [True, True]
    os.utime(cube, ns=(later + 1, later + 1))
    assert converted() == [True, True]


@pytest.mark.parametrize("key", CUBE)
def test_a_cube_without_a_key_is_refused(cube, tmp_path, key):
    "The message names the file and the key"
    cube.write_text(json.dumps({k: v for k, v in CUBE.items() if k != key}))
    with pytest.raises(ValueError, match=rf"cube\.json has no {key}"):
        prospectmap.convert_cube(cube, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nx": 4}, r"layer number 1 \(mag\) has 6 values, but 2 rows of 4 columns are 8"),
        ({"depositIdx": [6]}, r"depositIdx 6 is no cell number \(0 to 5\)"),
        ({"depositIdx": [-1]}, "depositIdx -1"),
        ({"depositIdx": [1.5]}, "depositIdx 1.5"),
        ({"box": {"west": 0}}, "box has no south, east, north, crs"),
        ({"layers": [{"id": "mag"}]}, "layer number 1 has no values"),
        ({"layers": [{"id": "../mag", "values": []}]}, "cannot be a file name"),
        ({"layers": [{"id": "a", "values": ["x"] * 6}]}, "neither number nor null"),
        ({"layers": CUBE["layers"] * 2}, "two layers share an id"),
    ],
)
def test_a_cube_that_does_not_fit_is_refused(cube, tmp_path, change, message):
    "Nothing is written"
    cube.write_text(json.dumps(CUBE | change))
    with pytest.raises(ValueError, match=message):
        prospectmap.convert_cube(cube, tmp_path)
    assert list(tmp_path.iterdir()) == [cube]
