"""The web map: one HTML file with all maps, evidence, deposits and targets, for any browser."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
from bokeh.document import Document
from bokeh.events import DocumentReady, MouseMove, Tap
from bokeh.layouts import column, row
from bokeh.models import (
    CheckboxGroup,
    ColumnDataSource,
    CustomJS,
    Div,
    Row,
    Select,
    Slider,
    TabPanel,
    Tabs,
)
from rasterio.features import rasterize

from mpm import artefacts, map_styles, web_figure, web_layers, web_page
from mpm.plots import readable
from mpm.study import Study

CELLS = 1000  # most cells along a side; a finer grid is averaged for display
LEADING = 3  # layers that a click names
SWITCHES = {
    "known deposits": ["deposits_shown"],
    "targets": ["outline_shown", "halo_shown", "rank_shown"],
    "longitude and latitude": ["lines_shown", "line_names_shown"],
}
CARD = """
:host { font: 13px/1.4 system-ui, sans-serif; overflow-y: auto }
h2 { font-size: 1.15em; margin: 0 } p { margin: .25em 0 }
table { border-collapse: collapse; width: 95% } td { border-top: 1px solid #e2e2e2 }
td:last-child { text-align: right; padding-left: 1em } th { text-align: left; padding-top: .5em }
"""


def write(
    study: Study,
    target: str,
    maps: Mapping[str, xr.Dataset],
    cubes: Mapping[str, xr.Dataset],
    deposits: Mapping[str, pd.DataFrame],
    targets: Mapping[str, gpd.GeoDataFrame],
    place: Path,
    *,
    facts: Mapping | None = None,
    cells: int = CELLS,
) -> None:
    """Write one HTML file that needs no network, with everything to look at for a target.

    Every region is a tab. Over an evidence layer of choice lies likelihood or uncertainty with an
    opacity; deposits, targets and a graticule are switched on and off; a click shows the values of
    a cell and the layers that lead there. To be small, the page holds each layer in 8 bits: shown
    values are rounded to 1/254 of their range, the outermost 0.1 % at each end to "≤" or "≥".

    Parameters
    ----------
    study : Study
    target : str
    maps : dict of Dataset
        By region, of `mapping.prediction_maps`; with `attribution` a click names leading layers.
    cubes : dict of Dataset
        By region, in memory, unscaled.
    deposits : dict of DataFrame
        By region, of `labels.read_deposits`.
    targets : dict of GeoDataFrame
        By region, of `targets.find`.
    place : Path
        Ends in `.html`.
    facts : dict, optional
        Of `mapping.read_facts`, for the text under the map.
    cells : int
        Most cells along a side; of a finer grid each shown cell is the mean of several.
    """
    names = [name for name in map_styles.LOOKS if name != "attribution"]
    names = [name for name in names if name in next(iter(maps.values()))]
    ranges = {name: map_styles.limits(name, maps) for name in names}
    document, tabs = Document(), []
    for region, result in maps.items():
        keep = [*ranges, *(["attribution"] if "attribution" in result else [])]
        few = web_layers.coarse(result[keep], cells)
        cube = web_layers.coarse(cubes[region][["evidence"]], cells)
        panel, start = _panel(region, few, cube, deposits[region], targets[region], ranges)
        document.js_on_event(DocumentReady, start)
        tabs.append(TabPanel(child=panel, title=readable(region)))
    document.add_root(Tabs(tabs=tabs) if len(tabs) > 1 else tabs[0].child)
    artefacts.write_text(place, web_page.page(document, study, target, dict(facts or {})))


def _panel(
    region: str,
    result: xr.Dataset,
    cube: xr.Dataset,
    known: pd.DataFrame,
    found: gpd.GeoDataFrame,
    ranges: dict[str, tuple[float, float]],
) -> tuple[Row, CustomJS]:
    """Return one region's map with its controls, and what draws it when the page has loaded."""
    layers = web_layers.maps(result, ranges) | web_layers.evidence(cube)
    planes, origins, largest = web_layers.leading(result, cube, LEADING)
    codes = {key: layer.codes for key, (layer, _) in layers.items()} | planes
    codes["target"] = _ranks(found, result)
    shown = {key: facts for key, (_, facts) in layers.items()}
    parts = web_figure.draw(result, known, found)
    parts |= _controls(shown, list(ranges))
    packed = {key: web_layers.packed(plane) for key, plane in codes.items()}
    parts["codes"] = ColumnDataSource(packed)
    facts = _geometry(result) | {
        "layers": shown,
        "maps": list(ranges),
        "groups": _groups(shown),
        "palettes": {name: web_figure.palette(name) for name in ("viridis", "magma", "cividis")},
        "switched": list(SWITCHES.values()),
        "leading": LEADING,
        "origins": origins,
        "largest": largest,
        "targets": [_sentence(target) for target in found.itertuples()],
        "nodes": web_layers.nodes(result),
    }
    parts["region"], parts["facts"] = region, json.dumps(facts)
    return _arranged(parts), _wired(parts)


def _arranged(parts: dict) -> Row:
    side = [parts[name] for name in ("map_choice", "opacity", "evidence_choice", "switches")]
    legend = Div(text=_legend(), stylesheets=[CARD])
    return row(
        column(parts["figure"], parts["pointer"]), column(*side, legend, parts["card"]), spacing=16
    )


def _wired(parts: dict) -> CustomJS:
    """Let controls and mouse call the page's code; return what draws the panel."""
    # one argument holds all models, so that each call needs one only
    calls = {
        name: CustomJS(args=parts, code=f"webMap.{name}({{{', '.join(parts)}}}, cb_obj)")
        for name in ("update", "hover", "click")
    }
    for control in ("map_choice", "opacity", "evidence_choice"):
        parts[control].js_on_change("value", calls["update"])
    parts["switches"].js_on_change("active", calls["update"])
    parts["figure"].js_on_event(MouseMove, calls["hover"])
    parts["figure"].js_on_event(Tap, calls["click"])
    return calls["update"]


def _geometry(grid: xr.Dataset) -> dict:
    west, south, _, _ = grid.rio.bounds()
    return {
        "west": west / 1e3,
        "south": south / 1e3,
        "cell_km": abs(grid.rio.resolution()[0]) / 1e3,
        "rows": grid.sizes["y"],
        "columns": grid.sizes["x"],
    }


def _groups(shown: Mapping[str, dict]) -> list[tuple[str, list[str]]]:
    """Keys of the evidence by group, in the order of the study."""
    groups: dict[str, list[str]] = {}
    for key, facts in shown.items():
        if "group" in facts:
            groups.setdefault(readable(facts["group"]), []).append(key)
    return list(groups.items())


def _ranks(found: gpd.GeoDataFrame, grid: xr.Dataset) -> np.ndarray:
    """Rank of the target that a cell lies in (y, x), from the south up; 0 for none."""
    shape = grid.sizes["y"], grid.sizes["x"]
    pairs = list(zip(found.geometry, found["rank"], strict=True))
    if not pairs:
        return np.zeros(shape, "uint16")
    return rasterize(pairs, shape, transform=grid.rio.transform(), dtype="uint16")[::-1]


def _sentence(target: Any) -> str:
    """Say what is known of a target (row of `targets.find`)."""
    near = f"{target.nearest_km:.0f} km from {target.nearest}" if target.nearest else "none known"
    own = f"holds {target.known_names}" if target.known else f"new ground, nearest deposit {near}"
    speak = f"; leading: {target.leading}" if target.leading else ""
    spread = "" if np.isnan(target.uncertainty) else f" ± {target.uncertainty:.2f}"
    peak = f"{target.area_km2:.0f} km², peak {target.peak:.2f}{spread} in the mean"
    return f"{peak}; {own}{readable(speak)}"


def _controls(shown: Mapping[str, dict], names: list[str]) -> dict:
    """Return what the reader sets: which map, over which layer, how opaque, with what on top."""
    none = [("none", "none")]
    layers = {"": none} | {
        group: [(key, shown[key]["name"]) for key in keys] for group, keys in _groups(shown)
    }
    choices = [(name, shown[name]["name"]) for name in names] + none
    wide = {"width": 300}
    return {
        "map_choice": Select(title="Map", options=choices, value=names[0], **wide),
        "opacity": Slider(title="Opacity of the map", start=0, end=1, step=0.05, value=1, **wide),
        "evidence_choice": Select(
            title="Evidence beneath", options=layers, value="none", **wide
        ),
        "switches": CheckboxGroup(labels=list(SWITCHES), active=[0, 1], **wide),
        "pointer": Div(text="", height=22),
        "card": Div(
            text="<p>Click a cell or a deposit to read its values.</p>", height=420,
            stylesheets=[CARD], **wide,
        ),
    }  # fmt: skip


def _legend() -> str:
    """Explain markers and outlines."""
    dot = "display:inline-block;width:7px;height:7px;border-radius:5px;border:1.5px solid black"
    box = "display:inline-block;width:14px;height:9px;border:2px solid"
    marks = {
        dot: "known deposit",
        f"{box} {map_styles.NEW}": "target on new ground, with its rank",
        f"{box} {map_styles.KNOWN}": "target that holds known deposits",
        f"{box} {web_figure.GROUND};background:{web_figure.GROUND}": "no data",
    }
    lines = [f'<span style="{look}"></span> {text}' for look, text in marks.items()]
    return f"<p>{'<br>'.join(lines)}</p>"
