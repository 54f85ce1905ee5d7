"""The pipeline as a picture, drawn from a study: what goes in, what happens, what comes out."""

import textwrap
from collections import Counter

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from mpm.study import Study

_WIDTH, _GAP = 2.3, 0.55  # of a box and between boxes (units of the axes)
_MOST = 9  # groups of layers that are listed
_BLUE, _ORANGE, _GREEN = sns.color_palette("colorblind")[:3]
_GREY = (0.45, 0.45, 0.45)
_ARROW = {"arrowstyle": "-|>", "color": _GREY, "linewidth": 1.4, "shrinkA": 3, "shrinkB": 3}


def pipeline(study: Study, target: str) -> Figure:
    """Draw the way from a study's files to its maps and scores.

    Parameters
    ----------
    study : Study
        Gives layers by group, grids and what is known.
    target : str
        What is predicted.

    Returns
    -------
    Figure
        Data in blue, steps in orange, results in green; the numbers are those of the notebooks.
    """
    fig, ax = plt.subplots(figsize=(13, 4.2), layout="constrained")
    columns = [left * (_WIDTH + _GAP) for left in range(5)]
    evidence = _box(ax, columns[0], 1.6, 2.4, "Evidence layers", _layers(study), _BLUE)
    known = _box(ax, columns[0], 0, 1.3, "Known deposits", _deposits(study, target), _BLUE)
    lines = [*_grids(study), "", "deposits become labels of cells"]
    cube = _box(ax, columns[1], 0, 4, "01  One cube a region", lines, _ORANGE)
    text = "learns from windows of the maps alone, without deposits"
    mae = _box(ax, columns[2], 2.5, 1.5, "02  Masked autoencoder", [text], _ORANGE)
    text = "deposits against likely negatives, whole blocks held out"
    tuned = _box(ax, columns[3], 2.5, 1.5, "03  Fine-tuning", [text], _ORANGE)
    text = "standard methods: same cells, same folds, same scaling"
    plain = _box(ax, columns[2], 0, 1.5, "04  Baselines", [text], _ORANGE)
    text = "held-out scores with intervals over deposits"
    scores = _box(ax, columns[3], 0, 1.5, "05  Evaluation", [text], _GREEN)
    text = "likelihood and uncertainty of each cell"
    maps = _box(ax, columns[4], 2.5, 1.5, "Maps", [text], _GREEN)
    text = "which layers speak for a cell, and where"
    why = _box(ax, columns[4], 0, 1.5, "06  Explanation", [text], _GREEN)
    pairs = [(evidence, cube), (known, cube), (cube, mae), (mae, tuned), (tuned, maps)]
    for start, end in [*pairs, (cube, plain), (plain, scores)]:
        _arrow(ax, start, end)
    for start, end in [(tuned, scores), (maps, why)]:
        _arrow_down(ax, start, end)
    ax.set(xlim=(-0.1, columns[4] + _WIDTH + 0.1), ylim=(-0.1, 4.1))
    ax.set_axis_off()
    return fig


def _layers(study: Study) -> list[str]:
    groups = Counter(layer.group for layer in study.layers).most_common()
    more = sum(count for _, count in groups[_MOST:])
    lines = [f"{count} {group.replace('_', ' ')}" for group, count in groups[:_MOST]]
    return lines + ([f"and {more} more"] if more else [])


def _deposits(study: Study, target: str) -> list[str]:
    spec = study.target(target)
    kinds = "all types" if spec.types is None else ", ".join(spec.types)
    reach = f"cells within {spec.radius / 1000:g} km count" if spec.radius else "their cells count"
    return [f"target {target} ({kinds}); {reach}"]


def _grids(study: Study) -> list[str]:
    lines = []
    for name, region in list(study.regions.items())[:4]:
        rows, columns = region.shape
        size = f"{rows} x {columns} cells of {region.resolution / 1000:g} km"
        lines += [name.replace("_", " "), size]
    more = len(study.regions) - 4
    return lines + ([f"and {more} more"] if more > 0 else [])


def _box(
    ax: Axes, left: float, bottom: float, height: float, title: str, lines: list[str], color: tuple
) -> tuple[float, float, float]:
    """Draw one box with its text; return its left edge, bottom and height."""
    box = FancyBboxPatch(
        (left, bottom), _WIDTH, height, boxstyle="round,pad=0,rounding_size=0.12",
        facecolor=(*color, 0.12), edgecolor=color, linewidth=1.6,
    )  # fmt: skip
    ax.add_patch(box)
    middle = left + _WIDTH / 2
    ax.text(middle, bottom + height - 0.16, title, ha="center", va="top", weight="bold", size=10)
    wrapped = "\n".join(part for line in lines for part in textwrap.wrap(line, 28) or [""])
    top = bottom + height - 0.52
    ax.text(middle, top, wrapped, ha="center", va="top", size=9, linespacing=1.35)
    return left, bottom, height


def _arrow(ax: Axes, start: tuple[float, ...], end: tuple[float, ...]) -> None:
    """Draw a level arrow from a box's right side to another's left, where both are."""
    (left, bottom, height), (to, base, rise) = start, end
    level = (max(bottom, base) + min(bottom + height, base + rise)) / 2
    ax.annotate("", (to, level), (left + _WIDTH, level), arrowprops=_ARROW)


def _arrow_down(ax: Axes, start: tuple[float, ...], end: tuple[float, ...]) -> None:
    middle = start[0] + _WIDTH / 2
    ax.annotate("", (middle, end[1] + end[2]), (middle, start[1]), arrowprops=_ARROW)
