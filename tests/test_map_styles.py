from xml.etree import ElementTree

import numpy as np
import pytest
import xarray as xr

from mpm import map_styles


def shader(name, low, high):
    root = ElementTree.fromstring(map_styles.raster_style(name, low, high))
    renderer = root.find("pipe/rasterrenderer")
    assert root.tag == "qgis" and renderer.get("type") == "singlebandpseudocolor"
    assert renderer.get("band") == "1" and renderer.find("minMaxOrigin/limits").text == "None"
    return renderer.find("rastershader/colorrampshader")


@pytest.mark.parametrize(
    ("name", "low", "high", "ends", "units"),
    [
        ("likelihood", 0, 1, ["#440154", "#fde725"], "likelihood"),
        ("uncertainty", 0, 0.2, ["#000004", "#fcfdbf"], "standard deviation"),
        ("attribution", -0.5, 0.5, ["#053061", "#67001f"], "logit"),
    ],
)
def test_a_style_holds_the_house_colours(name, low, high, ends, units):
    "First and last colour of the map, its range, and labels with units"
    found = shader(name, low, high)
    items = found.findall("item")
    assert [items[0].get("color"), items[-1].get("color")] == ends
    values = [float(item.get("value")) for item in items]
    np.testing.assert_allclose(values, np.linspace(low, high, 9), atol=1e-6)
    assert float(found.get("minimumValue")) == low and float(found.get("maximumValue")) == high
    assert all(item.get("label").endswith(f" {units}") for item in items)
    assert items[2].get("label").startswith(f"{values[2]:.3g} ")


def test_the_ramp_of_the_dialogue_is_that_of_the_items():
    "First, last and the stops between them, at their shares"
    found = shader("attribution", -2, 2)
    options = {o.get("name"): o.get("value") for o in found.iterfind("colorramp/Option/Option")}
    assert options["color1"] == "5,48,97,255" and options["color2"] == "103,0,31,255"
    stops = options["stops"].split(":")
    assert len(stops) == 7 and stops[3].startswith("0.5;247,24")  # nearly white in the middle


def test_zero_is_in_the_middle_of_an_attribution():
    "The range is even on both sides, whatever the values; a likelihood's does not depend on them"
    plane = np.linspace(-1, 3, 401).reshape(1, 1, 401)
    plane[0, 0, 0] = np.nan
    made = xr.Dataset(
        {
            "attribution": (("layer", "y", "x"), plane),
            "uncertainty": (("y", "x"), plane[0] / 10),
            "likelihood": (("y", "x"), plane[0]),
        }
    )
    low, high = map_styles.limits("attribution", {"a": made, "b": made * 0.5})
    assert low == -high and 2.8 < high < 3
    assert map_styles.limits("uncertainty", {"a": made}) == (0, 0.3)
    assert map_styles.limits("likelihood", {"a": made}) == (0, 1)


def test_a_map_without_values_has_a_range():
    "Nothing explained, or no spread at all, divides nothing by zero"
    made = xr.Dataset({"attribution": (("y", "x"), np.full((2, 2), np.nan))})
    assert map_styles.limits("attribution", {"a": made}) == (-1, 1)
    assert map_styles.limits("attribution", {"a": made.fillna(0)}) == (-1, 1)


def test_a_map_without_colours_is_refused():
    with pytest.raises(ValueError, match="no colours for map 'distance'; add it to map_styles"):
        map_styles.raster_style("distance", 0, 1)


def test_targets_are_told_apart_by_known_deposits():
    "Two rules, two outlines of different colours, and ranks as labels"
    root = ElementTree.fromstring(map_styles.target_style())
    rules = root.findall("renderer-v2/rules/rule")
    assert [rule.get("filter") for rule in rules] == ['"known" = 0', '"known" > 0']
    assert [rule.get("label") for rule in rules] == ["new ground", "holds known deposits"]
    symbols = {symbol.get("name"): symbol for symbol in root.findall("renderer-v2/symbols/symbol")}
    colours = []
    for rule in rules:
        layer = symbols[rule.get("symbol")].find("layer")
        options = {o.get("name"): o.get("value") for o in layer.iterfind("Option/Option")}
        assert options["style"] == "no"  # the map beneath stays in sight
        colours.append(options["outline_color"])
    assert colours == ["215,25,28,255", "32,32,32,255"]
    assert root.find("labeling/settings/text-style").get("fieldName") == "rank"
