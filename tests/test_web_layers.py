import gzip

import numpy as np
import pytest
import xarray as xr
from rasterio.transform import from_origin

from mpm import web_layers


def grid(planes, *, step=1000.0, crs=3577, corner=(-2e5, -2e6), **coords) -> xr.Dataset:
    shape = next(iter(planes.values())).shape[-2:]
    dims = {2: ("y", "x"), 3: ("layer", "y", "x")}
    made = xr.Dataset(
        {name: (dims[plane.ndim], plane) for name, plane in planes.items()},
        coords={
            "x": corner[0] + step * (np.arange(shape[1]) + 0.5),
            "y": corner[1] - step * (np.arange(shape[0]) + 0.5),
            **coords,
        },
    )
    return made.rio.write_crs(crs).rio.write_transform(from_origin(*corner, step, step))


def test_codes_stand_for_the_values():
    "0 is missing, 1 the lowest, 255 the highest, from the south up; none is off by half a step"
    plane = np.linspace(10, 20, 600).reshape(20, 30)
    plane[0, 0] = np.nan
    made = web_layers.coded(plane)
    assert made.codes.dtype == np.uint8 and made.codes[-1, 0] == 0
    assert made.codes[-1, 1] == 1 and made.codes[0, -1] == 255
    inner = np.clip(plane, *np.nanquantile(plane, web_layers.CUT))
    np.testing.assert_allclose(made.values()[::-1], inner, atol=made.step / 2 + 1e-9)
    assert made.step == pytest.approx((np.nanmax(inner) - np.nanmin(inner)) / 254)


def test_the_ends_say_whether_more_lies_beyond():
    "A far outlier would take all steps for itself; it is held as the last code, and that is known"
    plane = np.append(np.tile(np.arange(100.0), 50), [1e6]).reshape(1, -1)
    made = web_layers.coded(plane)
    assert made.cut_high and not made.cut_low and made.step < 1
    assert made.codes[0, -1] == 255
    flat = web_layers.coded(np.full((2, 2), 7.0))
    assert not flat.cut_high and not flat.cut_low
    np.testing.assert_array_equal(flat.values(), np.full((2, 2), 7.0))


def test_an_empty_layer_is_missing_everywhere():
    assert (web_layers.coded(np.full((2, 3), np.nan)).codes == 0).all()


def test_packed_codes_come_back():
    "Sums along columns and rows, wrapped; and smooth layers pack better than they were"
    rng = np.random.default_rng(0)
    rough = rng.integers(0, 256, (9, 7)).astype("uint8")
    large = rng.integers(0, 65_536, (9, 7)).astype("uint16")
    for codes in (rough, large):
        steps = web_layers.packed(codes)
        assert steps.dtype == codes.dtype
        back = steps.cumsum(axis=0, dtype=codes.dtype).cumsum(axis=1, dtype=codes.dtype)
        np.testing.assert_array_equal(back, codes)
    x, y = np.meshgrid(np.linspace(0, 3, 80), np.linspace(0, 3, 80))
    smooth = web_layers.coded(np.sin(x) * np.cos(y)).codes
    small, plain = (len(gzip.compress(c.tobytes())) for c in (web_layers.packed(smooth), smooth))
    assert small < plain


def test_a_fine_grid_is_averaged_from_its_corner():
    "3 x 5 cells by twos: means of what is known, the north-west corner in place"
    plane = np.arange(15, dtype="float32").reshape(3, 5)
    plane[0, 0] = np.nan
    fine = grid({"likelihood": plane})
    few = web_layers.coarse(fine, 3)
    expected = [[(1 + 5 + 6) / 3, (2 + 3 + 7 + 8) / 4, (4 + 9) / 2], [10.5, 12.5, 14]]
    np.testing.assert_allclose(few["likelihood"], expected)
    assert few.rio.transform()[:6] == (2000, 0, -2e5, 0, -2000, -2e6)
    assert web_layers.coarse(fine, 5) is fine


def cube() -> xr.Dataset:
    distance = np.array([[0.0, 50_000], [100_000, np.nan]])
    shale = np.array([[1.0, 0], [0, np.nan]])
    return grid(
        {"evidence": np.stack([distance, shale]).astype("float32")},
        layer=["fault_distance", "rock=shale"],
        kind=("layer", ["continuous", "binary"]),
        units=("layer", ["m", "1"]),
        group=("layer", ["structure", "geology"]),
        origin=("layer", ["fault_distance", "rock"]),
    )


def test_evidence_is_in_units_that_are_read():
    "Distances in km, classes as yes or no of their layer"
    distance, shale = web_layers.evidence(cube()).values()
    assert distance[1]["title"] == "fault distance (km)" and distance[1]["units"] == "km"
    np.testing.assert_allclose(distance[0].values()[::-1], [[0, 50], [100, np.nan]], atol=0.3)
    assert shale[1]["binary"] and shale[1]["of"] == "rock" and shale[1]["name"] == "rock: shale"
    np.testing.assert_allclose(shale[0].values()[::-1], [[1, 0], [0, np.nan]])
    assert distance[1]["from"] < distance[1]["to"] and shale[1]["group"] == "geology"


def test_leading_layers_are_those_that_move_the_score_most():
    "Classes of a layer summed, either sign, the largest as 255 or 1; nothing where unexplained"
    parts = np.full((3, 2, 2), np.nan, "float32")
    parts[:, 0, 0] = [0.5, -0.75, -0.25]
    parts[:, 1, 1] = [0.2, 0.1, 0.0]
    result = grid({"likelihood": np.ones((2, 2)), "attribution": parts})
    own = grid({"evidence": parts}, origin=("layer", ["gravity", "rock", "rock"]))
    planes, names, largest = web_layers.leading(result, own, 2)
    assert names == ["gravity", "rock"] and largest == 1
    first, second = planes["leading_0"][::-1], planes["leading_1"][::-1]
    assert first.tolist() == [[2, 0], [0, 1]] and second.tolist() == [[1, 0], [0, 2]]
    assert planes["contribution_0"][::-1][0, 0] == 1  # rock: -1
    assert planes["contribution_1"][::-1][0, 0] == round(128 + 127 * 0.5)


def test_without_explanations_nothing_leads():
    planes, names, _ = web_layers.leading(grid({"likelihood": np.ones((2, 2))}), cube(), 3)
    assert names == [] and all((planes[f"leading_{k}"] == 0).all() for k in range(3))


def test_maps_have_the_range_they_are_given():
    made = web_layers.maps(grid({"likelihood": np.full((2, 2), 0.5)}), {"likelihood": (0.0, 1.0)})
    layer, facts = made["likelihood"]
    assert (facts["from"], facts["to"], facts["palette"]) == (0, 1, "viridis")
    assert facts["title"] == "likelihood (1)"
    np.testing.assert_allclose(layer.values(), 0.5)


def test_nodes_know_longitude_and_latitude():
    "From the south-west corner, row by row; Australia's Albers has its middle at 132 E"
    found = web_layers.nodes(grid({"likelihood": np.ones((400, 400))}))
    longitude = np.reshape(found["longitude"], (found["rows"], found["columns"]))
    latitude = np.reshape(found["latitude"], (found["rows"], found["columns"]))
    assert longitude[0, 32] == pytest.approx(132, abs=1e-6)
    assert (np.diff(longitude, axis=1) > 0).all() and (np.diff(latitude, axis=0) > 0).all()
    assert found["step"] == [400 / 64, 400 / 64]


def test_the_date_line_is_no_jump():
    "Longitudes go on beyond 180, east or west; where the projection ends there are none"
    wide = grid({"likelihood": np.ones((8, 8))}, step=1e6, crs=3832, corner=(0.0, 4e6))
    longitude = np.array(web_layers.nodes(wide)["longitude"][:65])  # Pacific Mercator, 150 E
    np.testing.assert_allclose(np.diff(longitude), 8e6 / 64 / 6378137 * 180 / np.pi, rtol=1e-3)
    assert longitude[0] % 360 == pytest.approx(150)
    globe = grid({"likelihood": np.ones((8, 8))}, step=2.5e6, crs=3035, corner=(-6e6, 14e6))
    assert None in web_layers.nodes(globe)["longitude"]


def test_a_graticule_has_names_and_stays_inside():
    "Meridians and parallels of Australia's centre"
    lines = web_layers.graticule(grid({"likelihood": np.ones((400, 400))}))
    names = [name for name, _, _ in lines]
    assert "132° E" in names and any(name.endswith("° S") for name in names)
    for _, x, y in lines:
        assert np.nanmin(x) >= -200 and np.nanmax(x) <= 200
        assert np.nanmin(y) >= -2400 and np.nanmax(y) <= -2000
    middle = dict((name, x) for name, x, _ in lines)["132° E"]
    np.testing.assert_allclose(middle[np.isfinite(middle)], 0, atol=1e-6)
