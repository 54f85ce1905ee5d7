import numpy as np
import pytest
import xarray as xr
from chaosmagpy.model_utils import synth_values

from mpm import geophysics

# tops of water, ice, three sediments, upper, middle and lower crust, mantle (km)
SEA = [0, -4, -4, -4.5, -4.5, -4.5, -5, -7, -11]
BASIN = [0.5, 0.5, 0.5, -1, -3, -6, -16, -28, -40]
ICE = [3, 3, 1, 1, 1, 1, -9, -19, -29]
LAND = [1, 1, 1, 1, 1, 1, -10, -20, -35]


@pytest.fixture
def toy_crust(tmp_path, monkeypatch):
    "Four cells: sea and basin in the north, ice and land in the south"
    monkeypatch.setattr(geophysics, "CRUST1_SHAPE", (2, 2))
    paths = [tmp_path / name for name in ("crust1.bnds", "crust1.vp", "crust1.rho")]
    layers = np.arange(9)
    tables = ([SEA, BASIN, ICE, LAND], [layers + 0.1 * cell for cell in range(4)], [layers] * 4)
    for path, table in zip(paths, tables, strict=True):
        np.savetxt(path, table, fmt="%7.2f")
    return paths


def test_crust_has_known_cells(toy_crust):
    "Elevations become depths and thicknesses: water is left out, ice is not"
    crust = geophysics.crust1(*toy_crust)
    expected = {
        "moho_depth": [[11, 40], [29, 35]],
        "crustal_thickness": [[7, 40.5], [32, 36]],
        "sediment_thickness": [[0.5, 6.5], [0, 0]],
        "upper_crust_thickness": [[0.5, 10], [10, 11]],
        "middle_crust_thickness": [[2, 12], [10, 10]],
        "lower_crust_thickness": [[4, 12], [10, 15]],
        "vp_upper_crust": [[5, 5.1], [5.2, 5.3]],
        "vp_lower_crust": [[7, 7.1], [7.2, 7.3]],
        "vp_mantle": [[8, 8.1], [8.2, 8.3]],
        "density_upper_crust": [[5, 5], [5, 5]],
        "density_lower_crust": [[7, 7], [7, 7]],
    }
    assert list(crust["band"].values) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(crust.sel(band=name), values, rtol=1e-6, err_msg=name)


def test_crust_lies_where_its_cells_are(toy_crust):
    "The first line is 89.5 N 179.5 W, the second its eastern neighbour, the third south of it"
    crust = geophysics.crust1(*toy_crust)
    assert (list(crust.x), list(crust.y)) == ([-179.5, -178.5], [89.5, 88.5])
    assert crust.rio.bounds() == (-180, 88, -178, 90)
    assert crust.rio.crs.to_epsg() == 4326


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3 4 5 6 7 8 9\n", r"crust1\.vp has 9 numbers, CRUST1\.0 has 4 x 9"),
        ("not a number\n", r"crust1\.vp is not a table of CRUST1\.0"),
    ],
)
def test_a_broken_crust_file_is_refused(toy_crust, text, message):
    "The message names the file"
    toy_crust[1].write_text(text)
    with pytest.raises(ValueError, match=message):
        geophysics.crust1(*toy_crust)


def write_grids(folder, *, gravity, height, topography, latitude=(-90, -45, 0, 45, 90)):
    "Gravity and topography, equal everywhere, on nodes a quarter of a turn apart"
    axes = {"latitude": list(latitude), "longitude": [-180, -90, 0, 90, 180]}
    full = np.ones((len(latitude), 5))
    fields = {"gravity": gravity, "height": height, "topography": topography}
    planes = {name: (("latitude", "longitude"), value * full) for name, value in fields.items()}
    paths = folder / "gravity.nc", folder / "topography.nc"
    for path, names in zip(paths, (["gravity", "height"], ["topography"]), strict=True):
        xr.Dataset({name: planes[name] for name in names}, coords=axes).to_netcdf(path)
    return paths


def test_disturbance_is_relative_to_normal_gravity(tmp_path):
    "On the ellipsoid: 978032.53 mGal at the equator, Somigliana's formula at 45 degrees"
    anomalies = geophysics.gravity_anomalies(
        *write_grids(tmp_path, gravity=0, height=0, topography=0)
    )
    at_equator, at_pole, flattened = 978032.53359, 983218.49379, 0.00193185265241 * 0.5
    at_45 = at_equator * (1 + flattened) / np.sqrt(1 - 0.00669437999014 * 0.5)
    assert at_equator < at_45 < at_pole
    disturbance = -anomalies.sel(band="disturbance").isel(x=0)
    np.testing.assert_allclose(disturbance, [at_45, at_equator, at_45], atol=0.05)


def test_normal_gravity_falls_with_height(tmp_path):
    "By 0.3086 mGal a metre near the ellipsoid: less by 3080 mGal within 10 at 10 km"
    low = geophysics.gravity_anomalies(*write_grids(tmp_path, gravity=0, height=0, topography=0))
    high = geophysics.gravity_anomalies(*write_grids(tmp_path, gravity=0, height=1e4, topography=0))
    np.testing.assert_allclose((high - low).sel(band="disturbance"), 3080, atol=10)


@pytest.mark.parametrize(("topography", "slab"), [(1000, 111.9), (-1000, -68.3), (0, 0)])
def test_slab_of_a_kilometre(tmp_path, topography, slab):
    "Rock of 2670 kg/m3 on land is taken away; at sea what it lacks against water is added"
    grids = write_grids(tmp_path, gravity=978000, height=1e4, topography=topography)
    anomalies = geophysics.gravity_anomalies(*grids)
    difference = anomalies.sel(band="disturbance") - anomalies.sel(band="bouguer")
    np.testing.assert_allclose(difference, slab, atol=0.5)


def test_gravity_lies_on_its_nodes_without_poles_or_seam(tmp_path):
    "North up; the pole rows and the second 180th meridian are gone; values follow latitude"
    paths = write_grids(tmp_path, gravity=0, height=0, topography=0)
    with xr.open_dataset(paths[0]) as grid:
        marked = grid.load()
    marked["gravity"][:] = 10 * np.arange(5)[:, None] + np.arange(5)
    marked.to_netcdf(paths[0])
    anomalies = geophysics.gravity_anomalies(*paths)
    assert list(anomalies.y) == [45, 0, -45]
    assert list(anomalies.x) == [-180, -90, 0, 90]
    across = anomalies.sel(band="disturbance", y=0)
    np.testing.assert_allclose(across - across[0], [0, 1, 2, 3], atol=0.07)  # float32


def test_gravity_and_topography_on_different_grids_are_refused(tmp_path):
    "The message names both files"
    gravity, _ = write_grids(tmp_path, gravity=0, height=0, topography=0)
    (tmp_path / "other").mkdir()
    shifted = (-90, -40, 0, 40, 90)
    grids = write_grids(tmp_path / "other", gravity=0, height=0, topography=0, latitude=shifted)
    with pytest.raises(
        ValueError, match=r"gravity\.nc and .*topography\.nc are on different grids"
    ):
        geophysics.gravity_anomalies(gravity, grids[1])


def write_shc(path, coefficients, *, lowest=1):
    "Coefficients by (n, m), m negative for the sine; all others are zero"
    highest = max(n for n, _ in coefficients)
    lines = ["# a model", f"{lowest} {highest} 1 1 1", " 2015.0"]
    for n in range(lowest, highest + 1):
        for m in [0, *(sign * k for k in range(1, n + 1) for sign in (1, -1))]:
            lines.append(f"{n} {m} {coefficients.get((n, m), 0.0)}")
    path.write_text("\n".join(lines) + "\n")
    return path


def geocentric(latitude):
    "Geocentric latitude (radians) on WGS84"
    return np.arctan((1 - 0.00669437999014) * np.tan(np.radians(latitude)))


@pytest.mark.parametrize(
    ("coefficient", "field"),
    [
        ((1, 0), lambda lat, lon: 2 * np.sin(lat)),
        ((1, 1), lambda lat, lon: 2 * np.cos(lat) * np.cos(lon)),
        ((1, -1), lambda lat, lon: 2 * np.cos(lat) * np.sin(lon)),
        ((2, 0), lambda lat, lon: 3 * (3 * np.sin(lat) ** 2 - 1) / 2),
        ((2, -2), lambda lat, lon: 3 * np.sqrt(3) / 2 * np.cos(lat) ** 2 * np.sin(2 * lon)),
    ],
)
def test_magnetic_field_of_one_coefficient(tmp_path, coefficient, field):
    "Dipoles and quadrupoles have closed forms, in geocentric latitude"
    path = write_shc(tmp_path / "model.shc", {coefficient: 10.0})
    found = geophysics.magnetic_field(path, lowest=1, step=30).sel(band="radial_field")
    assert list(found.y) == [75, 45, 15, -15, -45, -75]
    assert list(found.x[:3]) == [-165, -135, -105]
    latitude, longitude = geocentric(found.y.values)[:, None], np.radians(found.x.values)
    expected = np.broadcast_to(10 * field(latitude, longitude), found.shape)
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("lowest", [1, 3])
def test_magnetic_field_agrees_with_chaosmagpy(tmp_path, lowest):
    "All orders of degrees up to 6 at once, whether or not the file starts at degree 1"
    orders = [(n, m) for n in range(lowest, 7) for m in range(-n, n + 1)]
    values = np.random.default_rng(3).normal(size=len(orders))
    path = write_shc(tmp_path / "model.shc", dict(zip(orders, values, strict=True)), lowest=lowest)
    found = geophysics.magnetic_field(path, lowest=3, step=20)[0]
    numbers = np.loadtxt(path, skiprows=3)
    numbers = numbers[numbers[:, 0] >= 3, 2]
    colatitude = 90 - np.degrees(geocentric(found.y.values))
    expected = synth_values(numbers, 6371.2, colatitude, found.x.values, nmin=3, grid=True)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_low_degrees_are_left_out(tmp_path):
    "The dipole is the core's; a model of degrees below 16 alone has no crustal field"
    path = write_shc(tmp_path / "model.shc", {(1, 0): -30000.0, (15, 3): 5.0})
    assert not geophysics.magnetic_field(path, step=30).any()
    path = write_shc(tmp_path / "model.shc", {(1, 0): -30000.0, (16, 3): 5.0})
    assert 1 < float(abs(geophysics.magnetic_field(path, step=30)).max()) < 200


@pytest.mark.parametrize(
    ("left", "message"),
    [
        (slice(-1), r"model\.shc has 7 coefficients, but degrees 1 to 2 have 8"),
        (slice(1, 3), r"model\.shc has 0 coefficients"),
        (slice(2, 6), r"model\.shc is not an SHC file"),
    ],
)
def test_an_incomplete_model_is_refused(tmp_path, left, message):
    "One coefficient short, none at all, or no header"
    path = write_shc(tmp_path / "model.shc", {(2, 0): 1.0})
    path.write_text("\n".join(path.read_text().splitlines()[left]) + "\n")
    with pytest.raises(ValueError, match=message):
        geophysics.magnetic_field(path)


def published(mirror, name):
    return next(mirror.rglob(name))


def test_real_crust_has_published_ranges(mirror):
    "Moho of 7.4 to 74.8 km, 80 km of crust under Tibet; a known cell in the Midcontinent"
    crust = geophysics.crust1(
        *(published(mirror, f"crust1.{part}") for part in ("bnds", "vp", "rho"))
    )
    assert float(crust.sel(band="moho_depth").min()) == pytest.approx(7.4)
    assert float(crust.sel(band="moho_depth").max()) == pytest.approx(74.81)
    thickness = crust.sel(band="crustal_thickness")
    assert float(thickness.max()) == pytest.approx(80)
    y, x = np.unravel_index(thickness.values.argmax(), thickness.shape)
    assert 27 < crust.y[y] < 38
    assert 75 < crust.x[x] < 95
    australia = crust.sel(y=slice(-9, -44), x=slice(112, 155))
    assert float(australia.sel(band="moho_depth").max()) == pytest.approx(50.21)
    assert float(australia.sel(band="sediment_thickness").max()) == pytest.approx(11)


def test_real_gravity_has_published_ranges(mirror):
    "Disturbance and Bouguer anomaly of North America and Australia (mGal)"
    names = ("earth-gravity-10arcmin.nc", "earth-topography-10arcmin.nc")
    anomalies = geophysics.gravity_anomalies(*(published(mirror, name) for name in names))
    north_america = anomalies.sel(y=slice(84.01, 23.99), x=slice(-170.01, -49.99))
    australia = anomalies.sel(y=slice(-8.99, -44.01), x=slice(111.99, 155.01))
    for region, expected in (
        (north_america, [(-141.1, 210.4), (-342.6, 444.9)]),
        (australia, [(-139.7, 202.6), (-140.6, 405.4)]),
    ):
        low, high = region.min(("y", "x")), region.max(("y", "x"))
        np.testing.assert_allclose(np.stack([low, high], 1), expected, atol=0.06)


@pytest.mark.parametrize(
    ("model", "bangui", "kursk"), [("LCS-1.shc", 800, -1750), ("MF7.shc", 620, -1260)]
)
def test_real_magnetic_extremes_are_bangui_and_kursk(mirror, model, bangui, kursk):
    "The strongest crustal anomalies on Earth: central Africa (outward) and western Russia (inward)"
    field = geophysics.magnetic_field(published(mirror, model))[0]
    for extreme, value, place in (
        (field.argmax(...), bangui, (7, 18)),
        (field.argmin(...), kursk, (51, 37)),
    ):
        cell = field.isel(extreme)
        assert float(cell) == pytest.approx(value, rel=0.05)
        assert (float(cell.y), float(cell.x)) == pytest.approx(place, abs=1)
