"""QGIS styles of the maps: the house colours, so that a map opens as it is drawn in the figures."""

from collections.abc import Mapping
from xml.etree import ElementTree as Xml

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.colors import to_hex, to_rgb

# quantity to colour map and the name of its units
LOOKS = {
    "likelihood": ("viridis", "likelihood"),
    "uncertainty": ("magma", "standard deviation"),
    "ensemble_spread": ("magma", "standard deviation"),
    "attribution": ("RdBu_r", "logit"),
}
STEPS = 9  # colours that a ramp names; QGIS draws those between
NEW, KNOWN = "#d7191c", "#202020"  # outlines of targets without and with a known deposit
_VERSION = "3.22.0"


def limits(name: str, maps: Mapping[str, xr.Dataset]) -> tuple[float, float]:
    """Return the colour range of one kind of map, the same in all regions.

    Parameters
    ----------
    name : str
        One of `LOOKS`.
    maps : dict of Dataset
        By region.

    Returns
    -------
    low, high : float
        Likelihood: 0 and 1. Spreads: 0 and the 99th percentile. Attribution: the 99th percentile
        of its size, on both sides of zero. 0 and 1 where nothing is known.
    """
    if name == "likelihood":
        return 0.0, 1.0
    parts = [np.abs(result[name].values) for result in maps.values()]
    seen = np.concatenate([part[np.isfinite(part)] for part in parts])
    high = float(f"{np.quantile(seen, 0.99):.2g}") if seen.size else 1.0
    high = high or 1.0
    return (-high if name == "attribution" else 0.0), high


def raster_style(name: str, low: float, high: float) -> str:
    """Return the QGIS style (QML) of a map: band 1 in pseudocolour.

    Parameters
    ----------
    name : str
        One of `LOOKS`.
    low, high : float
        Ends of the colour range.

    Returns
    -------
    str
        XML, to be written beside the GeoTIFF with the suffix `.qml`; QGIS 3 reads it when it opens
        the map. Bands of an attribution share the range: choose another one in QGIS and keep it.

    Raises
    ------
    ValueError
        If there are no colours for that kind of map.
    """
    if name not in LOOKS:
        raise ValueError(f"no colours for map {name!r}; add it to map_styles.LOOKS")
    cmap, units = LOOKS[name]
    values = np.linspace(low, high, STEPS)
    colours = [to_hex(c) for c in matplotlib.colormaps[cmap](np.linspace(0, 1, STEPS))]
    root = Xml.Element("qgis", version=_VERSION, styleCategories="Symbology")
    pipe = Xml.SubElement(root, "pipe")
    span = {"classificationMin": f"{low:g}", "classificationMax": f"{high:g}"}
    kind = {"type": "singlebandpseudocolor", "band": "1", "opacity": "1", "alphaBand": "-1"}
    renderer = Xml.SubElement(pipe, "rasterrenderer", kind | span)
    origin = Xml.SubElement(renderer, "minMaxOrigin")
    Xml.SubElement(origin, "limits").text = "None"  # keep ours: no stretch to what is on screen
    shader = Xml.SubElement(
        Xml.SubElement(renderer, "rastershader"), "colorrampshader", colorRampType="INTERPOLATED",
        classificationMode="1", clip="0", minimumValue=f"{low:g}", maximumValue=f"{high:g}",
    )  # fmt: skip
    _ramp(shader, colours)
    for value, colour in zip(values, colours, strict=True):
        label = f"{value:.3g} {units}"
        Xml.SubElement(shader, "item", alpha="255", value=f"{value:.6g}", label=label, color=colour)
    return _text(root)


def _ramp(shader: Xml.Element, colours: list[str]) -> None:
    """Add the ramp as QGIS shows it in its dialogue: first, last, and stops between them."""
    ramp = Xml.SubElement(shader, "colorramp", name="[source]", type="gradient")
    share = np.linspace(0, 1, len(colours))
    inner = list(zip(share, colours, strict=True))[1:-1]
    stops = ":".join(f"{part:.4g};{_rgba(colour)}" for part, colour in inner)
    options = {"color1": _rgba(colours[0]), "color2": _rgba(colours[-1]), "discrete": "0"}
    _options(ramp, options | {"rampType": "gradient", "stops": stops})


def target_style() -> str:
    """Return the QGIS style (QML) of targets: outlines by new ground or known, numbered by rank."""
    root = Xml.Element("qgis", version=_VERSION, styleCategories="Symbology|Labeling")
    root.set("labelsEnabled", "1")
    renderer = Xml.SubElement(root, "renderer-v2", type="RuleRenderer", forceraster="0")
    rules = Xml.SubElement(renderer, "rules", key="targets")
    symbols = Xml.SubElement(renderer, "symbols")
    for number, (colour, claim, label) in enumerate(
        [(NEW, '"known" = 0', "new ground"), (KNOWN, '"known" > 0', "holds known deposits")]
    ):
        Xml.SubElement(
            rules, "rule", key=f"rule{number}", filter=claim, symbol=f"{number}", label=label
        )
        symbol = Xml.SubElement(symbols, "symbol", type="fill", name=f"{number}", alpha="1")
        layer = Xml.SubElement(symbol, "layer", {"class": "SimpleFill"}, enabled="1", locked="0")
        look = {"style": "no", "outline_color": _rgba(colour), "outline_style": "solid"}
        _options(layer, look | {"outline_width": "0.5", "outline_width_unit": "MM"})
    settings = Xml.SubElement(Xml.SubElement(root, "labeling", type="simple"), "settings")
    style = Xml.SubElement(
        settings, "text-style", fieldName="rank", fontSize="9", textColor="0,0,0,255"
    )
    Xml.SubElement(
        style, "text-buffer", bufferDraw="1", bufferSize="0.8", bufferColor="255,255,255,255"
    )
    return _text(root)


def _options(parent: Xml.Element, options: Mapping[str, str]) -> None:
    box = Xml.SubElement(parent, "Option", type="Map")
    for name, value in options.items():
        Xml.SubElement(box, "Option", name=name, type="QString", value=value)


def _rgba(colour: str) -> str:
    """Write a colour as QGIS does: red, green, blue, opacity, 0 to 255."""
    return ",".join(str(round(255 * part)) for part in to_rgb(colour)) + ",255"


def _text(root: Xml.Element) -> str:
    Xml.indent(root, " ")
    head = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
    return head + Xml.tostring(root, encoding="unicode") + "\n"
