"""What is to be said about one cell: what speaks for it, which deposits it is near to and like.

A cell is told by the number of its centre among the windows of a `Setting`.
"""

import contextlib

import numpy as np
import pandas as pd

from mpm import explain
from mpm.cell_setting import Setting, contributions, deposit_name, deposit_number, top_share
from mpm.plots import readable, readable_units
from mpm.pu_selection import embed

_WORDS = {
    "distance": ("closer", "farther"),
    "thickness": ("thinner", "thicker"),
    "depth": ("shallower", "deeper"),
    "lab": ("shallower", "deeper"),
    "moho": ("shallower", "deeper"),
}


def reasons(setting: Setting, centre: int, spoken: pd.Series) -> pd.DataFrame:
    """Put contributions to a cell's score into words.

    Parameters
    ----------
    setting : Setting
    centre : int
    spoken : Series
        Evidence layer to contribution (logits).

    Returns
    -------
    DataFrame
        layer, contribution, words, e.g. "lab 92 km, shallower than 88 % of the region: for"; the
        largest contribution first.
    """
    rows = []
    for name in spoken.abs().sort_values(ascending=False, kind="stable").index:
        side = "for" if spoken[name] > 0 else "against"
        rows.append((name, spoken[name], f"{_state(setting, centre, name)}: {side}"))
    return pd.DataFrame(rows, columns=["layer", "contribution", "words"])


def _state(setting: Setting, centre: int, name: str) -> str:
    """Say what an evidence layer holds at a cell, and how that compares with its region."""
    cube, windows = setting.cubes[setting.region(centre)], setting.fold.windows
    cell, valid = (windows.row[centre], windows.col[centre]), cube["valid"].values
    if is_classes(setting, name):
        plane = class_here(setting, centre, name)
        if plane is None:
            return f"{readable(name)} missing here"
        if not plane:
            return f"{readable(name)}: none of the classes"
        share = np.nanmean(cube["evidence"].sel(layer=plane).values[valid])
        own = readable(plane).removeprefix(f"{readable(name)}: ")
        return f"{readable(name)}, here {own}, as {100 * share:.0f} % of the region"
    layer = cube["evidence"].sel(layer=name)
    value, known = layer.values[cell], layer.values[valid]
    known = known[~np.isnan(known)]
    if np.isnan(value):
        return f"{readable(name)} missing here"
    divisor, units = readable_units(str(layer["units"].item()), known)
    amount = f"{readable(name)} {_amount(value / divisor, units)}"
    return f"{amount}, {_compared(name, value, known, setting.study.layer(name).kind)}"


def is_classes(setting: Setting, name: str) -> bool:
    """Say whether an evidence layer is one of classes, a plane each."""
    planes = _planes(setting, name)
    return len(planes) > 1 or "=" in planes[0]


def class_here(setting: Setting, centre: int, name: str) -> str | None:
    """Return the plane of the class that a cell holds; "" for none of them, None if missing."""
    cube, windows = setting.cubes[setting.region(centre)], setting.fold.windows
    values = cube["evidence"].sel(layer=_planes(setting, name)).values
    own = values[:, windows.row[centre], windows.col[centre]]
    if np.isnan(own).all():
        return None
    return next((p for p, v in zip(_planes(setting, name), own, strict=True) if v > 0.5), "")


def _planes(setting: Setting, name: str) -> list[str]:
    """Planes of an evidence layer."""
    return [plane for plane, of in zip(setting.layers, setting.origin, strict=True) if of == name]


def _amount(value: float, units: str) -> str:
    """Write a value with its units, of `plots.readable_units`."""
    if units == "share":
        return f"{100 * value:.3g} %"
    number, _, unit = units.partition(" ")
    with contextlib.suppress(ValueError):  # 169 in units of 0.01 % are 1.69 %
        value, units = value * float(number), unit
    times = "× " if units[:1].isdigit() else ""  # e.g. 10^-5 SI
    return f"{value:.3g} {times}{units}".removesuffix(" no units")


def _compared(name: str, value: float, known: np.ndarray, kind: str) -> str:
    """Say how a value compares with those of a region, e.g. "shallower than 88 % of the region"."""
    below, above = (known < value).mean(), (known > value).mean()
    tokens = ["distance"] if kind == "distance" else [] if kind == "derived" else name.split("_")
    words = next((_WORDS[token] for token in tokens if token in _WORDS), ("lower", "higher"))
    if below + above < 0.5:
        return f"as {100 * (1 - below - above):.0f} % of the region"
    return f"{words[int(below >= above)]} than {100 * max(below, above):.0f} % of the region"


def nearest(setting: Setting, centre: int, *, count: int = 3) -> pd.DataFrame:
    """Return the known deposits of a cell's region that lie nearest to it, but for its own.

    Returns
    -------
    DataFrame
        deposit, name, x, y (m) and km (distance), the nearest first; may be empty.
    """
    x, y = setting.place(centre)
    known = setting.deposits[setting.region(centre)]
    if setting.positive[centre]:  # a deposit is not its own neighbour
        known = known[known["deposit"] != deposit_number(setting, centre)]
    away = np.hypot(known["x"] - x, known["y"] - y) / 1000
    table = known.assign(km=away).sort_values(["km", "deposit"], kind="stable")
    return table.drop_duplicates("deposit")[["deposit", "name", "x", "y", "km"]].head(count)


def alike(setting: Setting, centre: int, spoken: pd.Series, *, count: int = 3) -> pd.DataFrame:
    """Return the known deposits that the pretrained backbone finds most like a cell.

    Likeness is the cosine between the mean tokens of two windows, less that of the background: 1
    is the same ground, 0 no more alike than any two places. A deposit is told by its most alike
    cell. Deposits whose window overlaps the cell's are left out: they see the same ground.

    Parameters
    ----------
    setting : Setting
    centre : int
    spoken : Series
        The cell's contributions by evidence layer.
    count : int

    Returns
    -------
    DataFrame
        centre, region, name, cosine, shared: of the five layers that count most for the cell,
        those that count among the five most for the deposit, too, and in the same direction.
    """
    windows = setting.fold.windows
    apart = np.maximum(
        abs(windows.row - windows.row[centre]), abs(windows.col - windows.col[centre])
    )
    apart = (apart >= windows.size) | (windows.region != windows.region[centre])
    near = np.unique(setting.deposit[setting.positive & ~apart])
    cells = np.flatnonzero(setting.positive & ~np.isin(setting.deposit, near))
    if not len(cells):
        return pd.DataFrame(columns=["centre", "region", "name", "cosine", "shared"])
    background = setting.fold.train[~setting.positive[setting.fold.train]]
    some = background[:: max(1, len(background) // 2000)]
    seen = embed(setting.encoder, windows, np.concatenate([[centre], cells, some]))
    seen = seen - seen[1 + len(cells) :].mean(axis=0)
    seen = seen / np.linalg.norm(seen, axis=1, keepdims=True).clip(min=1e-12)
    table = pd.DataFrame({"centre": cells, "cosine": seen[1 : 1 + len(cells)] @ seen[0]})
    table["deposit"] = setting.deposit[cells]
    table = table.sort_values(["cosine", "centre"], ascending=[False, True], kind="stable")
    table = table.drop_duplicates("deposit").head(count)
    _, theirs, _ = contributions(setting, table["centre"].to_numpy())
    table["shared"] = [
        ", ".join(map(readable, _shared(spoken, row))) for _, row in theirs.iterrows()
    ]
    table["region"] = [setting.region(each) for each in table["centre"]]
    table["name"] = [deposit_name(setting, each) for each in table["centre"]]
    return table[["centre", "region", "name", "cosine", "shared"]].reset_index(drop=True)


def _shared(one: pd.Series, other: pd.Series, *, leading: int = 5) -> list[str]:
    """Layers that are among the leading ones of both, with the same sign."""
    first, second = (
        each.abs().sort_values(ascending=False, kind="stable").index[:leading]
        for each in (one, other)
    )
    return [name for name in first if name in second and one[name] * other[name] > 0]


def misses(setting: Setting, predictions: pd.DataFrame, *, count: int = 3) -> pd.DataFrame:
    """Return the known deposits that networks which never saw them rank lowest.

    Parameters
    ----------
    setting : Setting
    predictions : DataFrame
        `mapping.PREDICTION_COLUMNS` of one method under one split: likelihoods of test cells.
    count : int

    Returns
    -------
    DataFrame
        centre (the deposit's likeliest cell while held out), region, name, likelihood and top (of
        the final network: share of the region that scores as high), held_out (the same share of
        the test cells of fold and region, by the fold's network), the lowest-ranked first.
    """
    rows = predictions.assign(
        held_out=predictions.groupby(["fold", "region"])["likelihood"].rank(
            ascending=False, method="max", pct=True
        )
    )
    windows, cells = setting.fold.windows, np.flatnonzero(setting.positive)
    where = pd.DataFrame(
        {"region": windows.region[cells], "row": windows.row[cells], "col": windows.col[cells]}
    ).assign(centre=cells, likelihood=setting.likelihood[cells], deposit=setting.deposit[cells])
    table = where.merge(rows[["region", "row", "col", "held_out"]], on=["region", "row", "col"])
    best = table.sort_values(["held_out", "centre"]).drop_duplicates("deposit")
    worst = best.sort_values("held_out", ascending=False, kind="stable").head(count)
    worst["top"] = [top_share(setting, each) for each in worst["centre"]]
    found = _named(setting, worst)
    return found.assign(held_out=worst["held_out"].to_numpy())


def new_ground(setting: Setting, *, far_km: float, count: int = 3) -> pd.DataFrame:
    """Return the highest-ranked cells far from any known deposit, and from each other.

    Parameters
    ----------
    setting : Setting
    far_km : float
        Least distance to the nearest positive cell, and between the cells chosen (km).
    count : int

    Returns
    -------
    DataFrame
        centre, region, name (empty), likelihood, top; fewer rows where no ground is left.
    """
    windows = setting.fold.windows
    away = explain.distance_to_positives(windows, setting.positive, setting.cubes)
    free = (away > far_km) & ~np.isnan(setting.likelihood)
    x, y = _places(setting)
    chosen = []
    for _ in range(count):
        if not free.any():
            break
        best = int(np.argmax(np.where(free, setting.likelihood, -np.inf)))
        chosen.append(best)
        near = np.hypot(x - x[best], y - y[best]) <= 1000 * far_km
        free &= ~(near & (windows.region == windows.region[best]))
    table = pd.DataFrame({"centre": chosen, "likelihood": setting.likelihood[chosen]})
    table["top"] = [top_share(setting, each) for each in chosen]
    return _named(setting, table)


def _places(setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates x, y (m) of all centres."""
    windows, found = setting.fold.windows, np.empty((2, len(setting.positive)))
    for number, cube in enumerate(setting.cubes.values()):
        here = windows.region == number
        found[0, here] = cube["x"].values[windows.col[here]]
        found[1, here] = cube["y"].values[windows.row[here]]
    return found[0], found[1]


def _named(setting: Setting, table: pd.DataFrame) -> pd.DataFrame:
    table = table.assign(
        region=[setting.region(each) for each in table["centre"]],
        name=[deposit_name(setting, each) for each in table["centre"]],
    )
    return table[["centre", "region", "name", "likelihood", "top"]].reset_index(drop=True)
