"""Small maps with deposits, to divide."""

import numpy as np
import pandas as pd
import rioxarray  # noqa: F401  (adds the .rio accessor)
import xarray as xr

from mpm import align, labels
from mpm.study import Region, Target


def make_cube(valid, places, *, radius=0.0, target="MVT", north=5_000_000) -> xr.Dataset:
    "A cube of 1 km cells (UTM 33, southern edge at 45 degrees) with deposits at (row, col)"
    rows, cols = valid.shape
    bounds = (500_000, north, 500_000 + 1000 * cols, north + 1000 * rows)
    cells = align.grid(Region(crs="EPSG:32633", resolution=1000, bounds=bounds))
    row, col = np.array(places, dtype=int).reshape(-1, 2).T
    deposits = pd.DataFrame(
        {"deposit": range(len(row)), "type": "", "row": row, "col": col}
    ).assign(x=cells["x"].values[col], y=cells["y"].values[row])
    number = labels.deposit_numbers(deposits, Target(radius=radius), cells)
    number[~valid] = -1
    made = xr.Dataset(
        {
            "valid": (("y", "x"), valid),
            target: (("y", "x"), number >= 0),
            f"{target}_deposit": (("y", "x"), number),
        },
        coords={"y": cells["y"], "x": cells["x"]},
    )
    return made.rio.write_crs("EPSG:32633")


def with_target(cube: xr.Dataset, places, target="CD") -> xr.Dataset:
    "The cube with deposits of another target, one cell each; no two deposits share a number"
    other = make_cube(cube["valid"].values, places, target=target)
    number = other[f"{target}_deposit"].values
    number[number >= 0] += 1000
    return cube.assign({name: other[name].variable for name in (target, f"{target}_deposit")})


def everywhere(rows, cols):
    return np.ones((rows, cols), bool)
