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
_BETWEEN, _HEAD, _LINE = 0.25, 0.62, 0.18  # of blue boxes; a title with margins; a line of text
_STEPS = {
    "02  Masked autoencoder": "learns from windows of the maps alone, without deposits",
    "03  Fine-tuning": "deposits against likely negatives, whole blocks held out",
    "04  Baselines": "standard methods: same cells, same folds, same scaling",
    "05  Evaluation": "held-out scores with intervals over deposits",
    "Maps": "likelihood and uncertainty of each cell",
    "06  Explanation": "which layers speak for a cell, and where",
}
_ARROWS = [
    ("Evidence layers", "01  One cube a region"),
    ("Known deposits", "01  One cube a region"),
    ("01  One cube a region", "02  Masked autoencoder"),
    ("02  Masked autoencoder", "03  Fine-tuning"),
    ("03  Fine-tuning", "Maps"),
    ("01  One cube a region", "04  Baselines"),
    ("04  Baselines", "05  Evaluation"),
    ("03  Fine-tuning", "05  Evaluation"),
    ("Maps", "06  Explanation"),
]
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
    texts = {"Evidence layers": _layers(study), "Known deposits": _deposits(study, target)}
    texts |= {"01  One cube a region": [*_grids(study), "", "deposits become labels of cells"]}
    texts |= {title: [text] for title, text in _STEPS.items()}
    need = {title: _need(lines) for title, lines in texts.items()}
    small = max(need[title] for title in _STEPS)
    known_height = need["Known deposits"]
    tall = max(2 * small + 0.4, need["01  One cube a region"])
    tall = max(tall, known_height + _BETWEEN + need["Evidence layers"])
    fig, ax = plt.subplots(figsize=(13, tall + 0.2), layout="constrained")
    places = {
        "Evidence layers": (0, known_height + _BETWEEN, tall - known_height - _BETWEEN, _BLUE),
        "Known deposits": (0, 0, known_height, _BLUE),
        "01  One cube a region": (1, 0, tall, _ORANGE),
        "02  Masked autoencoder": (2, tall - small, small, _ORANGE),
        "03  Fine-tuning": (3, tall - small, small, _ORANGE),
        "04  Baselines": (2, 0, small, _ORANGE),
        "05  Evaluation": (3, 0, small, _GREEN),
        "Maps": (4, tall - small, small, _GREEN),
        "06  Explanation": (4, 0, small, _GREEN),
    }
    box = {}
    for title, (column, bottom, height, color) in places.items():
        left = column * (_WIDTH + _GAP)
        box[title] = _box(ax, left, bottom, height, title, texts[title], color)
    for start, end in _ARROWS:
        draw = _arrow_down if places[start][0] == places[end][0] else _arrow
        draw(ax, box[start], box[end])
    ax.set(xlim=(-0.1, 4 * (_WIDTH + _GAP) + _WIDTH + 0.1), ylim=(-0.1, tall + 0.1))
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
    named = f"target {target}" if kinds == target else f"target {target} ({kinds})"
    reach = f"cells within {spec.radius / 1000:g} km are" if spec.radius else "their cells are"
    return [f"{named}; {reach} positive"]


def _grids(study: Study) -> list[str]:
    lines = []
    for name, region in list(study.regions.items())[:4]:
        rows, columns = region.shape
        size = f"{rows} x {columns} cells of {region.resolution / 1000:g} km"
        lines += [name.replace("_", " "), size]
    more = len(study.regions) - 4
    return lines + ([f"and {more} more"] if more > 0 else [])


def _wrapped(lines: list[str]) -> list[str]:
    return [part for line in lines for part in textwrap.wrap(line, 28) or [""]]


def _need(lines: list[str]) -> float:
    """Return the height of a box that holds a title and some text (units of the axes, inches)."""
    return _HEAD + _LINE * len(_wrapped(lines))


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
    level = bottom + (height - _HEAD / 2) / 2  # in the middle of what the title leaves
    wrapped = "\n".join(_wrapped(lines))
    ax.text(middle, level, wrapped, ha="center", va="center", size=9, linespacing=1.35)
    return left, bottom, height


def _arrow(ax: Axes, start: tuple[float, ...], end: tuple[float, ...]) -> None:
    """Draw a level arrow from a box's right side to another's left, where both are."""
    (left, bottom, height), (to, base, rise) = start, end
    level = (max(bottom, base) + min(bottom + height, base + rise)) / 2
    ax.annotate("", (to, level), (left + _WIDTH, level), arrowprops=_ARROW)


def _arrow_down(ax: Axes, start: tuple[float, ...], end: tuple[float, ...]) -> None:
    middle = start[0] + _WIDTH / 2
    ax.annotate("", (middle, end[1] + end[2]), (middle, start[1]), arrowprops=_ARROW)
