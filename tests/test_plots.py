import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401  (adds the .rio accessor)
import xarray as xr
from helpers import bars, texts
from matplotlib.colors import to_rgb
from rasterio.crs import CRS
from rasterio.transform import from_origin
from scipy.ndimage import gaussian_filter

from mpm import map_plots, plots
from mpm.study import Target

LOCAL = CRS.from_proj4("+proj=laea +lat_0=11 +lon_0=22 +ellps=GRS80 +units=m")
DEPOSITS = pd.DataFrame(
    {"x": [500_250.0, 503_000.0], "y": [897_000.0, 900_750.0], "type": ["MVT", "CD"]}
).assign(deposit=[4, 9])


@pytest.fixture(autouse=True)
def house_style():
    "Every test draws in the style of the notebooks, and leaves no figure open"
    with plt.rc_context():
        plots.house_style()
        yield
    plt.close("all")


def cube(shape=(8, 12), crs=32633, seed=0) -> xr.Dataset:
    """Two layers on 500 m cells, west edge at 500 km, north edge at 901 km; a gap in a corner."""
    rng = np.random.default_rng(seed)
    evidence = rng.normal(size=(2, *shape)).astype("float32")
    evidence[1] = evidence[1] > 0
    evidence[:, :2, :2] = np.nan
    made = xr.Dataset(
        {
            "evidence": (("layer", "y", "x"), evidence),
            "valid": (("y", "x"), np.isfinite(evidence[0])),
            "likelihood": (("y", "x"), np.clip(evidence[0] / 8 + 0.4, 0, 1)),
            "uncertainty": (("y", "x"), np.abs(evidence[0]) / 20),
        },
        coords={
            "layer": ["gravity", "rock=black_shale"],
            "kind": ("layer", ["continuous", "binary"]),
            "units": ("layer", ["mGal", "1"]),
            "x": 500_250 + 500.0 * np.arange(shape[1]),
            "y": 900_750 - 500.0 * np.arange(shape[0]),
        },
        attrs={"region": "west"},
    )
    return made.rio.write_crs(crs).rio.write_transform(from_origin(500_000, 901_000, 500, 500))


def maps(ax) -> list:
    return ax.get_images()


# Files


def test_saving_twice_gives_the_same_bytes(outputs):
    "A PNG in the study's folder, without date or software version; the old one is replaced"
    contents = []
    for _ in range(2):
        fig = map_plots.likelihood_maps({"west": cube()}, {"west": DEPOSITS}, title="demo")
        place = plots.save(fig, "demo", "05_maps")
        contents.append(place.read_bytes())
    assert place == outputs / "figures" / "demo" / "05_maps.png"
    assert contents[0] == contents[1]
    assert contents[0].startswith(b"\x89PNG")
    for word in (b"Software", b"Matplotlib", b"tIME", b"date", b"Creation"):
        assert word not in contents[0]


def test_a_map_of_a_region_is_a_small_file():
    "192 x 192 cells, likelihood and uncertainty with deposits: below 300 kB"
    large = cube((192, 192))
    smooth = 12 * gaussian_filter(np.random.default_rng(0).normal(size=(192, 192)), 6)
    large["likelihood"][:] = 1 / (1 + np.exp(-smooth))
    large["uncertainty"][:] = np.abs(smooth) / 20
    fig = map_plots.likelihood_maps({"west": large}, {"west": DEPOSITS}, title="demo")
    assert plots.save(fig, "demo", "05_large").stat().st_size < 300_000


# One map


def test_a_map_lies_at_its_kilometres():
    "Edges, not centres, of the cells: 500 to 506 km east, 897 to 901 km north; north is up"
    plane = cube()["evidence"][0]
    ax = plots.show_map(plane, label="gravity (mGal)", title="Gravity")
    (image,) = maps(ax)
    assert image.get_extent() == [500, 506, 897, 901]
    assert image.origin == "upper"
    np.testing.assert_array_equal(image.get_array().filled(np.nan), plane.values)
    assert ax.get_aspect() == 1
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Easting (km)", "Northing (km)")
    assert ax.get_title() == "Gravity"
    assert bars(ax.figure)[0].ax.get_ylabel() == "gravity (mGal)"


@pytest.mark.parametrize(("crs", "name"), [(32633, "EPSG:32633"), (LOCAL, "local CRS")])
def test_a_map_names_its_crs(crs, name):
    "By its code, or as local where there is none"
    ax = plots.show_map(cube(crs=crs)["evidence"][0], label="")
    assert texts(ax) == [name]


def test_missing_cells_are_light_grey():
    "In the picture itself: the gap in the north-west corner shows the colour of no scale"
    fig, ax = plt.subplots(figsize=(4, 4))
    plots.show_map(cube()["evidence"][0], ax, label="", bar=False)
    fig.canvas.draw()
    picture = np.asarray(fig.canvas.buffer_rgba())[..., :3] / 255

    def color(x, y):
        column, row = ax.transData.transform((x, y))
        return picture[round(picture.shape[0] - row), round(column)]

    grey = to_rgb(plots.NODATA)
    np.testing.assert_allclose(color(500.4, 900.6), grey, atol=0.01)
    assert np.abs(color(503.25, 899.25) - grey).max() > 0.05


@pytest.mark.parametrize("axes", [True, False])
def test_deposits_are_drawn_at_their_kilometres(axes):
    "As hollow circles, on maps with and without axes"
    ax = plots.show_map(cube()["likelihood"], label="", deposits=DEPOSITS, axes=axes)
    (circles,) = ax.lines
    np.testing.assert_allclose(circles.get_xdata(), [500.25, 503])
    np.testing.assert_allclose(circles.get_ydata(), [897, 900.75])
    assert circles.get_marker() == "o" and circles.get_markerfacecolor() == "none"
    assert circles.get_linestyle() == "None"


def test_no_deposits_draw_nothing():
    ax = plots.show_map(cube()["likelihood"], label="", deposits=DEPOSITS[:0])
    assert not ax.lines


def test_colours_leave_out_the_tails_and_say_so():
    "2nd to 98th percentile by default, with arrows on the colour bar; limits given are kept"
    plane = cube((30, 30))["evidence"][0]
    ax = plots.show_map(plane, label="")
    assert maps(ax)[0].get_clim() == pytest.approx(np.nanpercentile(plane, [2, 98]))
    wide = plots.show_map(plane, label="", limits=(-9, 9))
    assert maps(wide)[0].get_clim() == (-9, 9)
    high = plots.show_map(plane, label="", limits=(-9, 0))
    low = plots.show_map(plane, label="", limits=(0, 9))
    assert [bars(each.figure)[0].extend for each in (ax, wide, high, low)] == [
        "both",
        "neither",
        "max",
        "min",
    ]


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_layer_without_a_value_can_be_drawn():
    "All cells missing: an empty grey map, and no warning"
    plane = cube()["evidence"][0] * np.nan
    ax = plots.show_map(plane.rio.write_crs(32633), label="")
    assert maps(ax)[0].get_clim() == (0, 1)


# Several maps


def test_likelihood_maps_share_one_scale():
    "A row a quantity, a column a region, one scale a row: likelihood 0 to 1, uncertainty from 0"
    east = cube(seed=1)
    east["uncertainty"] = 3 * east["uncertainty"]
    fig = map_plots.likelihood_maps(
        {"west": cube(), "east": east}, {"west": DEPOSITS, "east": DEPOSITS[:1]}, title="MVT"
    )
    panels = [ax for ax in fig.axes if maps(ax)]
    assert [ax.get_title() for ax in panels] == [
        "west: likelihood",
        "east: likelihood",
        "west: uncertainty",
        "east: uncertainty",
    ]
    limits = [maps(ax)[0].get_clim() for ax in panels]
    assert limits[0] == limits[1] == (0, 1)
    assert limits[2] == limits[3] and limits[2][0] == 0
    both = np.concatenate([each["uncertainty"].values.ravel() for each in (cube(), east)])
    assert limits[2][1] == pytest.approx(np.nanpercentile(both, 99))
    assert [len(ax.lines) for ax in panels] == [1, 1, 0, 0]
    assert [len(panels[k].lines[0].get_xdata()) for k in (0, 1)] == [2, 1]
    labels = [bar.ax.get_ylabel() for bar in bars(fig)]
    assert labels == ["likelihood (1)"] * 2 + ["uncertainty (1)"] * 2
    assert fig.get_suptitle() == "MVT"


def test_likelihood_alone_makes_one_row():
    fig = map_plots.likelihood_maps({"west": cube().drop_vars("uncertainty")})
    assert [ax.get_title() for ax in fig.axes if maps(ax)] == ["west: likelihood"]


def test_layer_maps_show_units_and_shares():
    "Continuous layers with their units, one-hot planes from 0 to 1; spare panels stay empty"
    layers = ["gravity", "rock=black_shale", "gravity"]
    fig = map_plots.layer_maps(cube(), layers, title="evidence", columns=2)
    panels = [ax for ax in fig.axes if maps(ax)]
    titles = ["gravity", "rock: black shale\n(yellow: yes)", "gravity"]
    assert [ax.get_title() for ax in panels] == titles
    assert fig.get_suptitle() == "evidence (EPSG:32633)"
    scales = [child.get_ylabel() for ax in panels for child in ax.child_axes]
    assert scales == ["mGal", "mGal"]
    assert maps(panels[1])[0].get_clim() == (0, 1)
    assert sum(not ax.axison for ax in fig.axes) == 1


def test_long_distances_are_drawn_in_kilometres():
    "Metres up to 20 km, kilometres beyond"
    far = cube()
    far["units"] = ("layer", ["m" for _ in far["layer"]])
    far["evidence"][0] = 30_000
    ax = map_plots.layer_maps(far, ["gravity"], title="").axes[0]
    assert ax.child_axes[0].get_ylabel() == "km"
    np.testing.assert_allclose(maps(ax)[0].get_array(), 30)
    far["evidence"][0] = 300
    ax = map_plots.layer_maps(far, ["gravity"], title="").axes[0]
    assert ax.child_axes[0].get_ylabel() == "m"


@pytest.mark.parametrize(("cells", "length"), [(12, 2), (60, 8), (200, 20)])
def test_the_scale_bar_is_as_long_as_it_says(cells, length):
    "About a quarter of the width, one digit, in kilometres of the map"
    fig = map_plots.layer_maps(cube((8, cells)), ["gravity"], title="", columns=1)
    (bar,) = fig.axes[0].artists
    (line,) = bar.size_bar.get_children()
    assert line.get_width() == pytest.approx(length)
    assert bar.txt_label.get_text() == f"{length} km"


@pytest.mark.parametrize("value", [0, 1])
def test_the_scale_bar_is_read_on_any_ground(value):
    "Dark on light, in the picture itself, over the darkest and the lightest colour"
    plain = cube((40, 60))
    plain["evidence"][1] = value
    fig = map_plots.layer_maps(plain, ["rock=black_shale"], title="")
    fig.canvas.draw()
    picture = np.asarray(fig.canvas.buffer_rgba())[..., :3].mean(axis=-1)[::-1] / 255
    (bar,) = fig.axes[0].artists
    west, south, east, north = bar.patch.get_window_extent().extents.round().astype(int)
    framed = picture[south:north, west:east]
    assert np.median(framed) > 0.8 and framed.min() < 0.3


def test_panels_are_even_and_nothing_is_cut_off():
    "With one long name and one long bar: one size, one gap, all text apart and in the figure"
    wide = cube((20, 30)).assign_coords(
        layer=["a", "rock=one of the names that take several lines of a heading"],
        units=("layer", ["10 units of a very long name", "1"]),
    )
    layers = [*wide["layer"].values, *wide["layer"].values]
    title = "a title wider than all panels" * 5
    fig = map_plots.layer_maps(wide, layers, title=title, columns=2)
    boxes = [ax.get_window_extent() for ax in fig.axes]
    assert np.ptp([[box.width, box.height] for box in boxes], axis=0).max() < 1e-6
    outer = [ax.get_tightbbox() for ax in fig.axes] + [fig._suptitle.get_window_extent()]
    for k, one in enumerate(outer):
        assert min(one.x0, one.y0) > 0 and one.x1 < fig.bbox.x1 and one.y1 < fig.bbox.y1
        assert not any(one.overlaps(other) for other in outer[:k])


def test_units_are_those_of_a_reader():
    "Kilometres from 20 km on; values without units are shares only between 0 and 1"
    nan = np.nan
    assert plots.readable_units("m", np.array([nan, -25_000.0])) == (1000, "km")
    assert plots.readable_units("m", np.array([nan, 19_000.0])) == (1, "m")
    assert plots.readable_units("1", np.array([nan, 0.0, 1.0])) == (1, "share")
    assert plots.readable_units("1", np.array([0.5, 1.7])) == (1, "no units")
    assert plots.readable_units("mGal", np.array([nan])) == (1, "mGal")


def test_large_maps_are_thinned(monkeypatch):
    "Of 8 x 12 cells at most five a side: every third, the middle of three, where it was"
    monkeypatch.setattr(plots, "DRAWN", 5)
    plane = cube()["evidence"][0]
    ax = plots.show_map(plane, label="", limits=(0, 1))
    np.testing.assert_array_equal(maps(ax)[0].get_array().filled(np.nan), plane[1::3, 1::3])
    assert maps(ax)[0].get_extent() == [500, 506, 896.5, 901]


def test_a_layer_of_a_lazy_cube_is_computed_once():
    "Each chunk of one plane, and none of the other"
    asked, whole = [], cube()

    def noted(block, block_info):
        asked.append(block_info[0]["chunk-location"])
        return block

    lazy = whole.chunk(layer=1, y=4).assign_coords(whole.coords)
    data = lazy["evidence"].data.map_blocks(noted, dtype="float32", meta=np.empty((0, 0, 0)))
    lazy["evidence"] = lazy["evidence"].copy(data=data)
    map_plots.layer_maps(lazy, ["gravity"], title="")
    assert sorted(asked) == [(0, 0, 0), (0, 1, 0)]
    targets = {"MVT": Target(types=("MVT",))}
    map_plots.deposit_maps({"west": lazy}, {"west": DEPOSITS}, targets, over="gravity")
    assert len(asked) == 4


def test_every_target_is_drawn():
    "Six targets, six colours"
    ax = plt.subplots()[1]
    targets = {name: Target(types=None) for name in "abcdef"}
    plots.show_targets(ax, DEPOSITS, targets, "west")
    assert len({line.get_markeredgecolor() for line in ax.lines}) == 6


def test_deposit_maps_count_deposits_of_each_target():
    "By deposit, not by row, and only of the target's types"
    twice = pd.concat([DEPOSITS, DEPOSITS[:1].assign(x=501_000.0)])
    targets = {"MVT": Target(types=("MVT",)), "all": Target(types=None)}
    fig = map_plots.deposit_maps({"west": cube()}, {"west": twice}, targets, over="gravity")
    assert fig.axes[0].get_title() == "west: 1 MVT, 2 all"
    (legend,) = fig.legends
    assert [entry.get_text() for entry in legend.texts] == ["MVT", "all"]
    colors = [line.get_markeredgecolor() for line in legend.legend_handles]
    assert colors == plots.TARGET_COLORS[:2]
    drawn, _ = fig.axes[0].lines
    np.testing.assert_allclose(drawn.get_xdata(), [500.25, 501])
    assert bars(fig)[0].ax.get_ylabel() == "gravity (mGal)"


def test_missing_evidence_is_written_in_percent():
    "A cell a layer and region, in the order of the layers"
    coverage = pd.DataFrame(
        {
            "layer": ["b", "b", "a_x", "a_x"],
            "region": ["west", "east"] * 2,
            "missing": [0.0, 12.5, 100.0, 3.0],
        }
    )
    fig = map_plots.missing_table(coverage)
    ax = fig.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["b", "a x"]
    regions = [label.get_text() for label in ax.get_xticklabels()]
    found = np.array(texts(ax)).reshape(2, 2)
    assert found[0, regions.index("east")] == "12.5" and found[1, regions.index("west")] == "100.0"
    assert fig.axes[1].get_ylabel() == "missing (% of valid cells)"
    few = map_plots.missing_table(coverage.assign(missing=coverage["missing"] / 100 * 2.4))
    assert few.axes[0].collections[0].get_clim() == (0, 2.4)  # as far as there are data
    none = map_plots.missing_table(coverage.assign(missing=0.1))
    assert none.axes[0].collections[0].get_clim() == (0, 1)


def test_held_out_maps_have_a_column_a_method():
    "Ranks from 0 to 1, positive cells in red, one colour bar for all"
    ranks = {"west": cube()["likelihood"], "east": cube(seed=1)["likelihood"]}
    positive = np.zeros((8, 12), bool)
    positive[7, 2] = True
    fig = map_plots.held_out_maps({"mae": ranks, "gradient_boosting": ranks}, [positive] * 2)
    panels = [ax for ax in fig.axes if maps(ax)]
    assert [ax.get_title() for ax in panels] == [
        "west: MAE, fine-tuned",
        "west: gradient boosting",
        "east: MAE, fine-tuned",
        "east: gradient boosting",
    ]
    assert {maps(ax)[0].get_clim() for ax in panels} == {(0, 1)}
    assert all(ax.lines[0].get_xydata().tolist() == [[501.25, 897.25]] for ax in panels)
    assert [bar.ax.get_ylabel() for bar in bars(fig)] == ["rank within the fold (1), in tenths"]


def test_held_out_maps_of_many_methods_go_on_below():
    "Three methods, two across: the third starts a new row of both regions, beside nothing"
    ranks = {"west": cube()["likelihood"], "east": cube(seed=1)["likelihood"]}
    methods = dict.fromkeys(["mae", "gradient_boosting", "random_forest"], ranks)
    fig = map_plots.held_out_maps(methods, [np.zeros((8, 12), bool)] * 2, across=2)
    titles = [ax.get_title() for ax in fig.axes if maps(ax)]
    assert titles[2:] == [
        "east: MAE, fine-tuned",
        "east: gradient boosting",
        "west: random forest",
        "east: random forest",
    ]
    assert sum(not ax.axison for ax in fig.axes) == 2  # nothing beside the third method


def test_contrasts_are_drawn_with_their_error():
    "Contrast over studentised contrast is the standard error; unused layers are grey"
    table = pd.DataFrame(
        {
            "layer": ["faults", "age"],
            "contrast": [2.0, -0.5],
            "studentised": [4.0, -1.0],
            "used": [True, False],
        }
    )
    ax = map_plots.contrast_bars(table, minimum=1.5).axes[0]
    assert [bar.get_width() for bar in ax.patches] == [-0.5, 2.0]
    assert [to_rgb(bar.get_facecolor()) for bar in ax.patches] == [to_rgb("0.7"), to_rgb("C0")]
    whiskers = [segment[:, 0].tolist() for segment in ax.collections[0].get_segments()]
    assert whiskers == [[-1.0, 0.0], [1.5, 2.5]]
    assert "1.5" in ax.get_xlabel()


# Overview


def test_an_overview_has_four_layers_and_three_maps():
    "Deposits on the likelihood only, which goes from 0 to 1; explanation symmetric, over land"
    west = cube()
    attribution = west["evidence"][0] - 0.5
    fig = map_plots.overview(
        west, ["gravity"] * 4, west, attribution.rio.write_crs(32633), DEPOSITS,
        attribution_label="contribution of faults",
    )  # fmt: skip
    panels = [ax for part in fig.subfigs for ax in part.axes if maps(ax)]
    assert [ax.get_title() for ax in panels[4:]] == [
        "likelihood",
        "uncertainty",
        "contribution of faults",
    ]
    assert len(panels) == 7
    limits = [maps(ax)[0].get_clim() for ax in panels[4:]]
    assert limits[0] == (0, 1)
    assert limits[1][0] == 0
    ground = panels[6].images[1]
    assert ground.get_zorder() < panels[6].images[0].get_zorder()
    assert (~np.isnan(ground.get_array().filled(np.nan)) == west["likelihood"].notnull()).all()
    assert limits[2][0] == -limits[2][1] < 0
    circles = [line for ax in panels for line in ax.lines if line.get_marker() == "o"]
    assert len(circles) == 1 and circles[0].axes.get_title() == "likelihood"
