"""Geophysical grids from published models: crust, gravity and lithospheric magnetic field."""

from pathlib import Path

import numpy as np
import rioxarray  # noqa: F401  (adds the .rio accessor)
import xarray as xr

CRUST1_SHAPE = (180, 360)  # cells of one degree
CRUST1_TOPS = 9  # of water, ice, three sediments, upper, middle and lower crust, mantle
LAND_DENSITY, WATER_DENSITY = 2670.0, 1040.0  # kg/m3, of the Bouguer slab


def crust1(bounds: Path, velocity: Path, density: Path) -> xr.DataArray:
    """Read CRUST1.0: thickness, P velocity and density of the crust on a grid of one degree.

    Parameters
    ----------
    bounds, velocity, density : Path
        `crust1.bnds`, `crust1.vp` and `crust1.rho`: nine numbers a line, of water, ice, three
        sediments, upper, middle and lower crystalline crust and mantle: elevation of the top (km),
        velocity (km/s), density (g/cm3). A line a cell, from 89.5 N 179.5 W eastward, then
        southward.

    Returns
    -------
    DataArray (band, y, x)
        float32, north up, EPSG:4326. Bands: moho_depth (km below sea level), crustal_thickness (km,
        with ice, without water), sediment_thickness, upper_crust_thickness, middle_crust_thickness,
        lower_crust_thickness (km), vp_upper_crust, vp_lower_crust, vp_mantle (km/s),
        density_upper_crust, density_lower_crust (g/cm3).

    Raises
    ------
    ValueError
        If a file does not hold nine numbers for each of 64,800 cells.

    Source: Laske et al. 2013, Geophysical Research Abstracts 15, EGU2013-2658.
    """
    top, vp, rho = (_crust1_table(path) for path in (bounds, velocity, density))
    _, ice, sediment, _, _, upper, middle, lower, moho = top
    bands = {
        "moho_depth": -moho,
        "crustal_thickness": ice - moho,
        "sediment_thickness": sediment - upper,
        "upper_crust_thickness": upper - middle,
        "middle_crust_thickness": middle - lower,
        "lower_crust_thickness": lower - moho,
        "vp_upper_crust": vp[5],
        "vp_lower_crust": vp[7],
        "vp_mantle": vp[8],
        "density_upper_crust": rho[5],
        "density_lower_crust": rho[7],
    }
    rows, columns = CRUST1_SHAPE
    return _raster(bands, 89.5 - np.arange(rows), -179.5 + np.arange(columns))


def gravity_anomalies(gravity: Path, topography: Path) -> xr.DataArray:
    """Compute gravity disturbance and simple Bouguer anomaly from observed gravity.

    The disturbance is gravity minus that of the WGS84 ellipsoid at the same place and height. The
    Bouguer anomaly takes away from it an infinite slab of 2670 kg/m3 as thick as the land is high,
    or adds one of 1630 kg/m3 as thick as the sea is deep. No terrain or curvature is corrected for,
    and the slab is not continued to the height of the observation.

    Parameters
    ----------
    gravity : Path
        NetCDF: `gravity` (mGal) at `height` (m) above the ellipsoid, along latitude and longitude;
        nodes from pole to pole, the first longitude again at the end.
    topography : Path
        NetCDF: `topography` (m above sea level) on the same nodes.

    Returns
    -------
    DataArray (band, y, x)
        disturbance and bouguer (mGal), float32, north up, EPSG:4326, without the poles and the
        second copy of the first longitude: a global raster must not overlap itself.

    Raises
    ------
    ValueError
        If the grids differ.
    """
    import boule
    import harmonica

    with xr.open_dataset(gravity) as observed, xr.open_dataset(topography) as relief:
        nodes = (observed["longitude"].values, observed["latitude"].values)
        if not all(map(np.array_equal, nodes, (relief["longitude"], relief["latitude"]))):
            raise ValueError(f"{gravity} and {topography} are on different grids; fetch them again")
        place = (*np.meshgrid(*nodes), observed["height"].values)
        disturbance = observed["gravity"].values - boule.WGS84.normal_gravity(place)
        slab = harmonica.bouguer_correction(
            relief["topography"].values, density_crust=LAND_DENSITY, density_water=WATER_DENSITY
        )
    inner = (slice(-2, 0, -1), slice(None, -1))  # the files run from south to north
    bands = {"disturbance": disturbance[inner], "bouguer": (disturbance - slab)[inner]}
    return _raster(bands, nodes[1][inner[0]], nodes[0][inner[1]])


def magnetic_field(path: Path, *, lowest: int = 16, step: float = 0.25) -> xr.DataArray:
    """Compute the radial magnetic field of a spherical-harmonic model over the whole Earth.

    On the sphere of radius 6371.2 km the field is the sum over degree n and order m of
    (n + 1) P_nm(cos colatitude) (g_nm cos(m longitude) + h_nm sin(m longitude)).

    Parameters
    ----------
    path : Path
        Schmidt semi-normalised coefficients (nT) in SHC format.
    lowest : int
        Degrees below it are left out. By default 16: the core's field hides the crust's below it.
    step : float
        Cell size (degrees); a whole number of cells fills the globe.

    Returns
    -------
    DataArray (band, y, x)
        One band, radial_field (nT, positive outward), float32, north up, EPSG:4326.

    Raises
    ------
    ValueError
        If the number of coefficients does not fit the degrees stated.

    Source: Olsen et al. 2017, doi:10.1093/gji/ggx381, equation 1.
    """
    import boule
    from chaosmagpy.model_utils import legendre_poly

    latitude = 90 - step * (np.arange(round(180 / step)) + 0.5)
    longitude = -180 + step * (np.arange(round(360 / step)) + 0.5)
    # models are geocentric, maps geodetic: up to 0.19 degrees apart
    squash = 1 - boule.WGS84.first_eccentricity**2
    geocentric = np.degrees(np.arctan(squash * np.tan(np.radians(latitude))))
    cosine, sine = _coefficients(path)  # (n, m)
    degree = np.arange(len(cosine))
    weight = np.where(degree >= lowest, degree + 1, 0)[:, None]
    # above the diagonal it keeps derivatives, where the coefficients are zero
    polynomials = legendre_poly(degree[-1], 90 - geocentric)[:, :-1]  # (n, m, y)
    turn = np.radians(np.outer(degree, longitude))  # (m, x)
    field = np.einsum("nm,nmy->ym", weight * cosine, polynomials) @ np.cos(turn)
    field += np.einsum("nm,nmy->ym", weight * sine, polynomials) @ np.sin(turn)
    return _raster({"radial_field": field}, latitude, longitude)


def _crust1_table(path: Path) -> np.ndarray:
    """Read one file of CRUST1.0 as (layer, y, x)."""
    try:
        table = np.loadtxt(path)
    except ValueError as error:
        raise ValueError(f"{path} is not a table of CRUST1.0 ({error}); fetch it again") from error
    rows, columns = CRUST1_SHAPE
    if table.shape != (rows * columns, CRUST1_TOPS):
        raise ValueError(
            f"{path} has {' x '.join(map(str, table.shape))} numbers, CRUST1.0 has "
            f"{rows * columns} x {CRUST1_TOPS}; fetch it again"
        )
    return table.T.reshape(CRUST1_TOPS, rows, columns)


def _coefficients(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the g (cosine) and h (sine) coefficients of an SHC file, each (n, m) from degree 0."""
    from chaosmagpy.data_utils import load_shcfile

    try:
        _, values, facts = load_shcfile(str(path))
        lowest, highest = facts["nmin"], facts["nmax"]
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path} is not an SHC file ({error}); fetch it again") from error
    expected = (highest + 1) ** 2 - lowest**2  # degree n has 2 n + 1
    if len(values) != expected:
        raise ValueError(
            f"{path} has {len(values)} coefficients, but degrees {lowest} to {highest} have "
            f"{expected}; fetch it again"
        )
    cosine, sine = np.zeros((2, highest + 1, highest + 1))
    for n in range(lowest, highest + 1):
        row = values[n**2 - lowest**2 :, 0][: 2 * n + 1]  # g0, g1, h1, g2, h2, ...
        cosine[n, : n + 1] = np.r_[row[0], row[1::2]]
        sine[n, 1 : n + 1] = row[2::2]
    return cosine, sine


def _raster(
    bands: dict[str, np.ndarray], latitude: np.ndarray, longitude: np.ndarray
) -> xr.DataArray:
    """Stack bands (y, x) with their names and coordinates (degrees)."""
    raster = xr.DataArray(
        np.stack(list(bands.values())).astype("float32"),
        dims=("band", "y", "x"),
        coords={"band": list(bands), "y": latitude, "x": longitude},
    )
    return raster.rio.write_crs("EPSG:4326")
