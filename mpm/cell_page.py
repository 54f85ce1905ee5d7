"""One cell, one page: where it lies, what speaks for and against it, which deposits it is like."""

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure, SubFigure

from mpm import artefacts
from mpm.cell_facts import alike, class_here, is_classes, nearest, reasons
from mpm.cell_setting import Setting, contributions, deposit_name, find, open_setting, top_share
from mpm.explain import TOLERANCE, describe_cell
from mpm.map_files import MEANING, NOT_MEANING
from mpm.plots import DPI, NODATA, halo, house_style, readable, readable_units, scale_bar, show_map
from mpm.splits import cell_km
from mpm.study import load

LAYERS = 8  # reasons written out
SHOWN = 4  # layers of the window drawn


def write(
    study: str,
    longitude: float,
    latitude: float,
    *,
    target: str | None = None,
    out: Path | None = None,
    seed: int | None = None,
    device: str = "auto",
) -> Path:
    """Draw the page of a place and save it as PNG: `mpm explain STUDY --at LON LAT`.

    Parameters
    ----------
    study : str
        A name under `data/studies/`, or a path to a YAML file.
    longitude, latitude : float
        Degrees, WGS 84.
    target : str, optional
        By default the study's first.
    out : Path, optional
        By default a file named after the place in the study's folder of figures.
    seed : int, optional
        As for `cell_setting.open_setting`: by default that of the map.
    device : str

    Returns
    -------
    Path

    Raises
    ------
    FileNotFoundError
        If notebooks 01 to 03 have not run on the study.
    ValueError
        If the place lies outside every region, or on ground without a prediction, or `out` is no
        PNG.
    KeyError
        If the study has no such target.
    """
    setup = load(study)
    target = target or next(iter(setup.targets))
    name = f"explain_{target}_{longitude:.4f}_{latitude:.4f}.png"
    place = Path(out) if out else artefacts.figures(setup.name) / name
    if place.suffix.lower() != ".png":
        raise ValueError(f"--out {place} is no PNG; name a file that ends in .png")
    setting = open_setting(setup, target, seed=seed, device=device)
    centre = find(setting, longitude, latitude)
    house_style()
    fig = draw(setting, centre)
    with artefacts.atomic(place) as fresh:
        # the software's version would differ between machines
        fig.savefig(fresh, dpi=DPI, metadata={"Software": None})
    plt.close(fig)
    return place


def draw(setting: Setting, centre: int) -> Figure:
    """Draw the page of a cell.

    Parameters
    ----------
    setting : Setting
    centre : int
        Number of the cell's centre, of `cell_setting.find`.

    Returns
    -------
    Figure
    """
    attribution, summed, gap = contributions(setting, np.array([centre]))
    spoken = summed.iloc[0]
    fig = plt.figure(figsize=(11, 11), layout="constrained")
    fig.set_layout_engine("constrained", rect=(0, 0, 0.985, 1))
    upper, middle, lower = fig.subfigures(3, 1, squeeze=False, height_ratios=[4.5, 5.0, 1.5]).flat
    left, right = upper.subfigures(1, 2, width_ratios=[1, 1.25])
    near = nearest(setting, centre)
    _locate(setting, centre, near, left.subplots())
    _reason(reasons(setting, centre, spoken).head(LAYERS), right.subplots())
    _window(setting, centre, attribution[0], spoken, middle)
    _tell(lower, near, alike(setting, centre, spoken), whose(len(setting.members), float(gap[0])))
    fig.suptitle(headline(setting, centre), fontsize=11, x=0.02, ha="left")
    return fig


def headline(setting: Setting, centre: int) -> str:
    """Say where a cell lies, how likely it is and how high it ranks, in three lines."""
    where = describe_cell(setting.fold.windows, centre, setting.cubes, setting.likelihood[centre])
    name = deposit_name(setting, centre)
    what = f"{setting.study.title or setting.study.name}: {setting.target}"
    known = f"; known deposit {name}" if name else ""
    top = 100 * top_share(setting, centre)
    return (
        f"{what}{known}\n{where} ± {setting.uncertainty[centre]:.2f} (spread over dropout samples)"
        f"\nin the top {_percent(top)} % of {readable(setting.region(centre))}"
    )


def _locate(setting: Setting, centre: int, near: pd.DataFrame, ax: Axes) -> None:
    """Map of the region's likelihood with the cell, and lines to the nearest deposits."""
    region = setting.region(centre)
    x, y = (each / 1e3 for each in setting.place(centre))
    show_map(
        setting.maps[region]["likelihood"], ax, label="likelihood (1)", axes=False,
        deposits=setting.deposits[region], cmap=plt.get_cmap("viridis", 24), limits=(0, 1),
    )  # fmt: skip
    for row in near.itertuples():
        ax.plot([x, row.x / 1e3], [y, row.y / 1e3], color="white", linewidth=1)
    for color, width in [("white", 4), ("red", 2)]:  # seen on any ground
        ax.plot(x, y, "+", color=color, markersize=15, markeredgewidth=width)
    scale_bar(ax, setting.cubes[region])
    ax.set_title(f"{readable(region)}: the cell (+) and known deposits (○)")


def _reason(table: pd.DataFrame, ax: Axes) -> None:
    """Bars of contributions, each under its words."""
    for row, (moved, words) in enumerate(zip(table["contribution"], table["words"], strict=True)):
        color = "#b2182b" if moved > 0 else "#2166ac"  # the ends of RdBu_r, as in the windows
        ax.barh(-row, moved, height=0.38, color=color)
        text = ax.text(0, -row + 0.26, words, fontsize=8, transform=ax.get_yaxis_transform())
        text.set_path_effects(halo("white", 3))
    ax.axvline(0, color="0.4", linewidth=0.8, zorder=0)
    ax.set(yticks=[], ylim=(0.4 - len(table), 0.8))
    ax.set_xlabel("raises (right) or lowers (left) the score, compared with typical ground")
    ax.set_title("what speaks for the cell (red) and against it (blue)")
    for side in ("left", "right", "top"):
        ax.spines[side].set_visible(False)


def _window(
    setting: Setting, centre: int, attribution: np.ndarray, spoken: pd.Series, fig: SubFigure
) -> None:
    """Draw the layers that matter most around the cell, with their contributions drawn over."""
    names = spoken.abs().sort_values(ascending=False, kind="stable").index[:SHOWN]
    side = setting.fold.windows.size * cell_km(setting.cubes[setting.region(centre)]) / 2
    extent = (-side, side, -side, side)
    # few colours: a file keeps 256, and large areas of others would change theirs
    signed = plt.get_cmap("RdBu_r", 9)
    greys = ListedColormap(["0.6", "0.7", "0.8", "0.9"])
    axes = fig.subplots(2, len(names), sharex=True, sharey=True, squeeze=False)
    for (above, below), name in zip(axes.T, names, strict=True):
        ground, title = _evidence(setting, centre, attribution, name)
        low, high = _ends(ground)
        look = {"vmin": low, "vmax": high, "extent": extent}
        above.imshow(ground, cmap=plt.get_cmap("cividis", 20), **look)
        below.imshow(ground, cmap=greys, **look)
        parts = attribution[[of == name for of in setting.origin]].sum(axis=0)
        top = float(np.abs(parts).max()) or 1.0
        share = np.floor(4 * np.sqrt(np.abs(parts) / top)) / 4
        share[share < 0.5] = 0  # less than a quarter of the panel's largest is not drawn
        below.imshow(parts, cmap=signed, vmin=-top, vmax=top, extent=extent, alpha=share)
        above.set_title(title, fontsize=8)
        below.set_title(f"sum {parts.sum():+.2f}, one cell at most {top:.2g}", fontsize=8)
        for ax in (above, below):
            ax.set_facecolor(NODATA)
            ax.tick_params(labelsize=7)
            for color, width in [("white", 3), ("black", 1.2)]:
                ax.plot(0, 0, "+", color=color, markersize=8, markeredgewidth=width)
    axes[0, 0].set_ylabel("evidence\nkm from the cell", fontsize=8)
    axes[1, 0].set_ylabel("contribution drawn over\nkm from the cell", fontsize=8)
    scale = plt.cm.ScalarMappable(plt.Normalize(-1, 1), signed)  # without the map's transparency
    bar = fig.colorbar(scale, ax=axes[1], ticks=[-1, 0, 1], pad=0.01)
    bar.ax.set_yticklabels(["against", "0", "for"])
    bar.set_label("share of the panel's largest", fontsize=8)


def _evidence(
    setting: Setting, centre: int, attribution: np.ndarray, name: str
) -> tuple[np.ndarray, str]:
    """Values of a layer around a cell (size, size), in its units, and a title that names them.

    Of a layer of classes the class that the cell holds is shown, the one that its bar names.
    """
    cube, windows = setting.cubes[setting.region(centre)], setting.fold.windows
    planes = [k for k, of in enumerate(setting.origin) if of == name]
    totals = np.abs(attribution[planes].sum(axis=(1, 2)))
    plane = setting.layers[planes[int(totals.argmax())]]
    if is_classes(setting, name):
        plane = class_here(setting, centre, name) or plane
    half, layer = windows.size // 2, cube["evidence"].sel(layer=plane)
    padded = np.pad(layer.values.astype("float64"), half, constant_values=np.nan)
    row, col = windows.row[centre], windows.col[centre]
    ground = padded[row : row + windows.size, col : col + windows.size]
    heading = "\n".join(textwrap.wrap(readable(plane), 28))
    if is_classes(setting, name) or not np.isfinite(ground).any():
        return ground, f"{heading}\n(yellow: yes)" if np.isfinite(ground).any() else heading
    divisor, units = readable_units(str(layer["units"].item()), layer.values)
    low, high = np.nanmin(ground) / divisor, np.nanmax(ground) / divisor
    units = "" if units == "no units" else f" {units}"
    return ground / divisor, f"{heading}\n{low:.3g} (blue) to {high:.3g} (yellow){units}"


def _ends(ground: np.ndarray) -> tuple[float, float]:
    """Ends of the colours of a window: 0 and 1 of a class, else its smallest and largest value."""
    seen = ground[np.isfinite(ground)]
    if not seen.size or np.isin(seen, (0, 1)).all():
        return 0.0, 1.0
    return float(seen.min()), float(max(seen.max(), seen.min() + 1e-9))


def whose(networks: int, gap: float) -> str:
    """Say whose reasons a page shows, and whether they add up to the score.

    Parameters
    ----------
    networks : int
        How many drew the map.
    gap : float
        Of `cell_setting.contributions`.
    """
    source = "the network" if networks == 1 else f"{networks} networks, averaged as the map is"
    if not gap < TOLERANCE:
        miss = f"CAUTION: they miss the difference of the scores by {gap:.1%}; do not rely on them"
    else:
        miss = f"they add up to the difference of the scores within {max(gap, 0.0001):.2%}"
    return f"Reasons are those of {source}: {miss}. The score is the log of the odds."


def _tell(fig: SubFigure, near: pd.DataFrame, like: pd.DataFrame, source: str) -> None:
    """Write what is known of deposits near to the cell and like it."""
    lines = ["Nearest known deposits"]
    pairs = zip(near["name"], near["km"], strict=True)
    lines += [f"   {name}, {km:.0f} km" for name, km in pairs]
    fig.text(
        0.02, 0.98, "\n".join([*lines, *["   no other in this region"] * near.empty]), va="top"
    )
    lines = ["Known deposits on the most similar ground (likeness, 1 at most), and what they share"]
    for name, region, cosine, shared in like[["name", "region", "cosine", "shared"]].to_numpy():
        text = f"{name} ({readable(region)}), {cosine:.2f}: {shared or 'nothing in common'}"
        lines += [f"   {line}" for line in textwrap.wrap(text, 84, subsequent_indent="      ")]
    fig.text(0.3, 0.98, "\n".join([*lines, *["   none"] * like.empty]), va="top")
    means = f"{source}\nLikelihood: {MEANING['likelihood']};\n{NOT_MEANING['likelihood']}."
    fig.text(0.02, 0.012, means, fontsize=8, color="0.35")


def _percent(share: float) -> str:
    """Round a share (%): 17, 4.2, and what would be 0.0 as less than 0.1."""
    return "< 0.1" if share < 0.05 else f"{share:.{0 if share >= 10 else 1}f}"
