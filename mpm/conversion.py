"""Turn the continental study's files into ones that GIS reads, where they are not already."""

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import geopandas as gpd
import pandas as pd
import xarray as xr

from mpm import artefacts, datacube, geophysics

# mW/m2. Below, moving water rather than rock sets what a borehole measures; above, a geothermal
# field is a spot, not a region.
HEAT_FLOW_LIMITS = (10, 250)


def convert_continental(folder: Path) -> list[Path]:
    """Write GeoTIFFs and CSVs from published texts, coefficients and tables.

    An output that is there and not older than its sources, or the code that makes it, is left
    alone.

    Parameters
    ----------
    folder : Path
        Holds the sources as published; the outputs go beside them: crust1.tif,
        gravity_anomalies.tif, magnetic_lcs1.tif, magnetic_mf7.tif, heat_flow.csv, deposits.csv.

    Returns
    -------
    list of Path
        The outputs.

    Raises
    ------
    FileNotFoundError
        If a source is missing.
    ValueError
        If a source does not hold what it should; the message names it.
    """
    code = [Path(__file__), Path(geophysics.__file__)]
    outputs = []
    for name, (sources, make) in _OUTPUTS.items():
        output, paths = Path(folder) / name, [Path(folder) / source for source in sources]
        missing = [str(path) for path in paths if not path.exists()]
        if missing:
            raise FileNotFoundError(f"{', '.join(missing)} is missing; fetch the study again")
        made = max(path.stat().st_mtime_ns for path in [*paths, *code])
        if not output.exists() or output.stat().st_mtime_ns < made:
            _write(make(*paths), output)
        outputs.append(output)
    return outputs


def heat_flow_table(path: Path) -> pd.DataFrame:
    """Read heat flow measurements: longitude, latitude (degrees), heat_flow (mW/m2).

    Rows without a place on Earth, outside 10 to 250 mW/m2, or that repeat another row exactly (the
    source joins two compilations) are left out.

    Parameters
    ----------
    path : Path
        Text with columns Lon, Lat and HF, separated by spaces.

    Raises
    ------
    ValueError
        If a column is missing.

    Source: Loesing and Ebbing 2021, doi:10.1029/2020JB021499.
    """
    table = pd.read_csv(path, sep=r"\s+")
    table = _columns(table, {"Lon": "longitude", "Lat": "latitude", "HF": "heat_flow"}, path)
    on_earth = table["longitude"].between(-180, 180) & table["latitude"].between(-90, 90)
    kept = table[on_earth & table["heat_flow"].between(*HEAT_FLOW_LIMITS)]
    return kept.drop_duplicates(ignore_index=True)


def deposit_table(path: Path) -> pd.DataFrame:
    """Read the world's sediment-hosted and iron-oxide copper-gold deposits.

    Parameters
    ----------
    path : Path
        Attribute table (.dbf) of the point file; it holds the coordinates too.

    Returns
    -------
    DataFrame
        name, type ("MVT", "CD", "Cu-Sed", "IOCG"), longitude, latitude (degrees), age_Ma, ore_Mt,
        zn_percent, pb_percent, cu_percent: NaN where the source has none or 0.

    Raises
    ------
    ValueError
        If a column is missing.

    Source: Hoggard et al. 2020, doi:10.1038/s41561-020-0593-2.
    """
    with TemporaryDirectory() as alone:  # beside a .shp without .shx, GDAL refuses the table
        copy = shutil.copy(path, alone)
        table = gpd.read_file(copy, ignore_geometry=True, encoding="utf-8")
    names = {"Deposit": "name", "Type": "type", "Lon_": "longitude", "Lat_": "latitude"}
    numbers = {"Age__Ga_": "age_Ma", "Ore__Mt_": "ore_Mt", "Zn_grade__": "zn_percent"}
    numbers |= {"Pb_grade__": "pb_percent", "Cu_grade__": "cu_percent"}
    table = _columns(table, names | numbers, path)
    table["name"] = table["name"].replace({"Blee": "Blende"})  # this copy lost an "nd"
    table["type"] = table["type"].str.removeprefix("PbZn-")
    given = table[[*numbers.values()]]
    table[given.columns] = given.where(given > 0)
    table["age_Ma"] = (table["age_Ma"] * 1000).round(3)  # Ga
    return table


def _columns(table: pd.DataFrame, names: dict[str, str], path: Path) -> pd.DataFrame:
    """Keep and rename columns."""
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise ValueError(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(table.columns)}"
        )
    return table[[*names]].rename(columns=names)


def _write(content: pd.DataFrame | xr.DataArray, output: Path) -> None:
    if isinstance(content, pd.DataFrame):
        with artefacts.atomic(output) as fresh:
            content.to_csv(fresh, index=False, lineterminator="\n", encoding="utf-8")
    else:
        datacube.write_geotiff(content, output, names=list(content["band"].values))


# what is written, from which files, by what
_OUTPUTS: dict[str, tuple[tuple[str, ...], Callable[..., pd.DataFrame | xr.DataArray]]] = {
    "crust1.tif": (("crust1.bnds", "crust1.vp", "crust1.rho"), geophysics.crust1),
    "gravity_anomalies.tif": (
        ("earth-gravity-10arcmin.nc", "earth-topography-10arcmin.nc"),
        geophysics.gravity_anomalies,
    ),
    "magnetic_lcs1.tif": (("LCS-1.shc",), geophysics.magnetic_field),
    "magnetic_mf7.tif": (("MF7.shc",), geophysics.magnetic_field),
    "heat_flow.csv": (("Combined_HF.txt",), heat_flow_table),
    "deposits.csv": (("All_Deposits.dbf",), deposit_table),
}
