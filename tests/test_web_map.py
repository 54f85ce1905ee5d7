from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from helpers import chromium
from rasterio.transform import from_origin

from mpm import targets, web_map

STUDY = SimpleNamespace(name="toy", title="Toy", licence="CC0", citation="")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
FLAGS += " --disable-background-networking --disable-component-update --window-size=1300,1100"
SHAPE = 20, 30


def region(name, middle) -> tuple[xr.Dataset, xr.Dataset, pd.DataFrame]:
    "10 km cells; likelihood is 0.9 around the deposit and 0.2 elsewhere, missing in the west"
    coords = {
        "y": -1_995_000 - 10_000.0 * np.arange(SHAPE[0]),
        "x": 5_000 + 10_000.0 * np.arange(SHAPE[1]),
        "layer": ["gravity", "rock=shale"],
        "kind": ("layer", ["continuous", "binary"]),
        "units": ("layer", ["mGal", "1"]),
        "group": ("layer", ["geophysics", "geology"]),
        "origin": ("layer", ["gravity", "rock"]),
    }
    likely = np.full(SHAPE, 0.2, "float32")
    likely[9:12, middle - 1 : middle + 2] = 0.9
    likely[:, :3] = np.nan
    gravity = np.add.outer(np.zeros(SHAPE[0]), np.arange(SHAPE[1], dtype="float32"))
    shale = (gravity > 15).astype("float32")
    shale[17] = np.nan
    parts = np.full((2, *SHAPE), np.nan, "float32")
    parts[:, 9:12] = np.array([0.5, -1.0])[:, None, None]
    cube = xr.Dataset({"evidence": (("layer", "y", "x"), np.stack([gravity, shale]))}, coords)
    maps = xr.Dataset(
        {
            "likelihood": (("y", "x"), likely),
            "uncertainty": (("y", "x"), likely / 10),
            "attribution": (("layer", "y", "x"), parts.astype("float32")),
        },
        coords,
    )
    own = {"deposit": [0], "name": [f"<{name}> mine"], "type": ["MVT"], "row": [10]}
    own |= {"col": [middle], "x": [5_000.0 + 1e4 * middle], "y": [-1_995_000.0 - 1e5]}
    place = from_origin(0, -1_990_000, 10_000, 10_000)
    cube, maps = (each.rio.write_crs(3577).rio.write_transform(place) for each in (cube, maps))
    return maps, cube, pd.DataFrame(own)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    parts = {"west": region("west", 10), "east": region("east", 20)}
    maps, cubes, known = ({name: part[k] for name, part in parts.items()} for k in range(3))
    found = targets.find(maps, cubes, known, share=9 / 540)
    place = tmp_path_factory.mktemp("web") / "map.html"
    web_map.write(STUDY, "MVT", maps, cubes, known, found, place, facts={"seed": 7})
    content = place.read_bytes()
    web_map.write(STUDY, "MVT", maps, cubes, known, found, place, facts={"seed": 7})
    assert place.read_bytes() == content  # the same bytes for the same data
    return place


@pytest.fixture(scope="module")
def browser(page, tmp_path_factory):
    made = chromium(tmp_path_factory.mktemp("profile"), FLAGS, "the web map is not tested")
    from selenium.webdriver.support.ui import WebDriverWait

    made.get(page.as_uri())
    ready = "return !!window.Bokeh && Bokeh.documents.length == 1 && Bokeh.documents[0].is_idle"
    WebDriverWait(made, 60).until(lambda window: window.execute_script(ready))
    yield made
    # of everything that the tests below did
    loud = [each for each in made.get_log("browser") if each["level"] in ("SEVERE", "WARNING")]
    made.quit()
    assert not loud


FIND = """
const models = [...Bokeh.documents[0]._all_models.values()];
const of = (type) => models.filter((model) => model.type === type);
const figure = of("Figure")[0], view = Bokeh.index.find_one(figure);
const images = figure.renderers.filter((each) => each.glyph.type === "Image");
const [evidence, map] = images, [choice, beneath] = of("Select"), opacity = of("Slider")[0];
const values = (image) => image.data_source.get_column("image")[0];
const switches = of("CheckboxGroup")[0], bars = of("ColorBar");
"""


def ask(browser, script):
    return browser.execute_script(FIND + script)


def click(browser, x, y):
    "A real click of the mouse at a place of the first map (km), and the card beside it then"
    from selenium.webdriver.common.action_chains import ActionChains

    left, top = ask(
        browser,
        f"""const box = view.el.getBoundingClientRect(), {{x_scale, y_scale}} = view.frame;
        return [box.left + x_scale.compute({x}), box.top + y_scale.compute({y})]""",
    )
    action = ActionChains(browser)
    action.w3c_actions.pointer_action.move_to_location(round(left), round(top))
    action.click().pause(0.5).perform()
    return ask(browser, "return of('Div').find((div) => div.height === 420).text")


def test_the_map_is_drawn_from_its_bytes(browser):
    "As numbers from the south up, missing in the west; the evidence is hidden until it is chosen"
    drawn = np.array(ask(browser, "return Array.from(values(map))"), float).reshape(SHAPE)
    assert np.isnan(drawn[:, :3]).all()
    np.testing.assert_allclose(drawn[19 - 10, [9, 15]], [0.9, 0.2], atol=0.003)
    assert ask(browser, "return [map.visible, evidence.visible]") == [True, False]
    assert ask(browser, "return [map, map].map((m) => m.glyph.color_mapper.high)") == [1, 1]


def test_layers_switch(browser):
    "Evidence beneath with its units and range; uncertainty instead of likelihood; nothing"
    ask(browser, 'beneath.value = "evidence_0"; choice.value = "uncertainty"')
    shown = np.array(ask(browser, "return Array.from(values(evidence))")).reshape(SHAPE)
    np.testing.assert_allclose(shown[0], np.arange(30), atol=0.1)
    assert ask(browser, "return [map.visible, evidence.visible]") == [True, True]
    titles = ask(browser, "return bars.filter((bar) => bar.visible).map((bar) => bar.title)")
    assert {"gravity (mGal)", "uncertainty (standard deviation)"} <= set(titles)
    spread = ask(browser, "return values(map)[9 * 30 + 10]")
    assert spread == pytest.approx(0.09, abs=0.001)
    ask(browser, 'beneath.value = "none"; choice.value = "none"')
    assert ask(browser, "return [map.visible, evidence.visible]") == [False, False]
    ask(browser, 'choice.value = "likelihood"')
    assert ask(browser, "return map.visible")


def test_the_map_can_be_made_transparent(browser):
    ask(browser, "opacity.value = 0.4")
    assert ask(browser, "return map.glyph.global_alpha.value ?? map.glyph.global_alpha") == 0.4
    ask(browser, "opacity.value = 1")


def test_deposits_and_targets_are_switched(browser):
    "Off and on again; the graticule is off at first"
    kinds = "return figure.renderers.filter((r) => r.visible).map((r) => r.glyph.type)"
    first = ask(browser, kinds)
    assert "Scatter" in first and first.count("MultiPolygons") == 2 and "MultiLine" not in first
    ask(browser, "switches.active = [2]")
    assert sorted(ask(browser, kinds)) == ["Image", "MultiLine", "Text"]
    ask(browser, "switches.active = [0, 1]")
    assert ask(browser, kinds) == first


def test_a_click_on_a_deposit_shows_its_name_and_values(browser):
    "Text of a name is shown, not run; ranks, target, leading layers and evidence of its cell"
    card = click(browser, 105, -2095)
    assert "<h2>&#60;west&#62; mine</h2>" in card and "(MVT)" in card
    assert "likelihood: <b>0.9" in card and "among the most likely 1.7 %" in card  # 9 of 540
    assert "Target 1" in card and "holds &#60;west&#62; mine" in card
    assert "rock (against, −1), gravity (for, +0.5)" in card
    assert (
        "<td>gravity</td><td>9.99 mGal</td>" in card or "<td>gravity</td><td>10 mGal</td>" in card
    )
    assert "shale" not in card  # a class that is not there


def test_a_click_elsewhere_shows_its_cell(browser):
    "No deposit, no target, no explanation; the class that is there"
    card = click(browser, 255, -2035)
    assert "known deposit" not in card and "Target" not in card
    assert "likelihood: <b>0.2" in card and "100 %" in card
    assert "not explained here" in card and "<td>rock</td><td>shale</td>" in card
    assert "° E, " in card and "° S" in card


def test_missing_is_called_missing(browser):
    assert "likelihood: <b>missing</b><" in click(browser, 15, -2035)


def test_the_pointer_reads_the_map(browser):
    "Place and value of the cell below the mouse"
    click(browser, 255, -2035)
    line = ask(browser, "return of('Div').find((div) => div.height === 22).text")
    assert "easting 255 km, northing -2035 km" in line and "likelihood 0.2" in line


def test_every_region_has_its_tab(browser):
    assert ask(browser, "return of('Tabs')[0].tabs.map((tab) => tab.title)") == ["west", "east"]


def test_a_map_of_one_region_has_no_tabs(tmp_path):
    "And maps without uncertainty, explanation, deposits or targets are maps all the same"
    maps, cube, known = region("west", 10)
    bare = {"west": maps[["likelihood"]]}
    none = {"west": known.iloc[:0]}
    found = targets.find(bare, {"west": cube}, none, share=9 / 540, min_cells=99)
    web_map.write(STUDY, "MVT", bare, {"west": cube}, none, found, tmp_path / "map.html")
    page = (tmp_path / "map.html").read_text(encoding="utf-8")
    data = page[page.index('type="application/json"') :]
    assert '"name":"Tabs"' not in data and '"uncertainty"' not in data


def test_a_class_layer_without_evidence_is_missing(browser):
    "Neither left out, nor none of the classes, which is what a cell of other rock is"
    cards = [click(browser, 105, -1_995 - 10 * row) for row in (17, 15)]
    assert "<td>rock</td><td>missing</td>" in cards[0]
    assert "<td>rock</td><td>none of the classes</td>" in cards[1]
    assert "<td>rock</td><td>shale</td>" in click(browser, 205, -1_995 - 150)
