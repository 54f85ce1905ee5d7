import pytest
from pydantic import ValidationError

from mpm.layers import Layer, derived

NAMED = {"name": "thing", "group": "geology", "units": "m"}
POINTS = {"kind": "points", "file": "a.csv", "column": "hf", "reach": 5000}
HIGHPASS = {"derive": "highpass", "of": "other", "reach": 5000}


def refused(**content):
    with pytest.raises(ValidationError) as caught:
        Layer(**NAMED | content)
    return str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        {"file": "a.nc", "variable": "z", "band": 2, "crs": "EPSG:4326", "scale": -1},
        {"file": "a.tif", "valid_range": [0, 9]},
        {"file": "a.parquet", "column": "moho"},
        {
            "kind": "categorical",
            "file": "a.gpkg",
            "column": "rock",
            "classes": ["granite", "shale"],
        },
        {"kind": "fraction", "file": "a.tif", "classes": [1, 2]},
        {"kind": "distance", "file": "a.gpkg", "edges": True},
        {"kind": "density", "file": "a.gpkg", "reach": 1000},
        POINTS | {"x": "lon", "y": "lat", "crs": "EPSG:4283", "method": "cubic"},
        {"derive": "hgm", "of": "other"},
        HIGHPASS,
    ],
)
def test_each_kind_takes_what_it_needs(content):
    "And states it back"
    layer = Layer(**NAMED | content)
    for name, value in content.items():
        assert getattr(layer, name) == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ({"file": "a.tif", "classes": [1]}, "classes make no sense for kind 'continuous'"),
        ({"file": "a.tif", "reach": 9}, "reach makes no sense for kind 'continuous'"),
        ({"file": "a.tif", "of": "other"}, "of makes no sense for kind 'continuous'"),
        ({"file": "a.tif", "x": "lon"}, "x makes no sense for kind 'continuous'"),
        ({"kind": "distance", "file": "a.shp", "band": 2}, "band makes no sense for kind 'dist"),
        ({"kind": "fraction", "file": "a.shp", "scale": 2}, "scale makes no sense for kind 'frac"),
        (
            {"kind": "categorical", "file": "a.tif", "edges": True, "reach": 9},
            "edges, reach make no sense for kind 'categorical'",
        ),
        (HIGHPASS | {"band": 2}, "band makes no sense for kind 'derived'"),
        (
            HIGHPASS | {"kind": "continuous", "reach": None},
            "derive, of make no sense for kind 'continuous'; a derived layer states no kind",
        ),
    ],
)
def test_a_field_that_makes_no_sense_for_the_kind_is_named(content, wrong):
    assert f"layer 'thing': {wrong}" in refused(**content)


@pytest.mark.parametrize(
    ("content", "lacking"),
    [
        ({}, "`file` is missing"),
        ({"file": "a.tif", "units": ""}, "`units` is missing"),
        ({"kind": "density", "file": "a.shp"}, "density needs `reach`"),
        (POINTS | {"column": None}, "points needs `column`"),
        (POINTS | {"reach": None}, "points needs `reach`"),
        ({"kind": "derived"}, "derived needs `derive`"),
        ({"derive": "hgm"}, "hgm needs `of`"),
        (HIGHPASS | {"reach": None}, "highpass needs `reach`"),
        (HIGHPASS | {"file": "a.tif"}, "is derived of 'other'; leave `file` out"),
        ({"derive": "hgm", "of": "other", "reach": 9}, "reach makes no sense for hgm"),
    ],
)
def test_what_is_missing_or_too_much_is_named(content, lacking):
    message = refused(**content)
    assert "layer 'thing'" in message and lacking in message


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("crs", "EPSG:1", "'EPSG:1' is not a CRS"),
        ("valid_range", (9, 0), "valid_range must be lowest, highest"),
        ("band", 0, "greater than or equal to 1"),
        ("scale", float("nan"), "finite"),
    ],
)
def test_impossible_values_are_refused(field, value, said):
    assert said in refused(file="a.tif", **{field: value})


@pytest.mark.parametrize(
    ("derive", "units"),
    [("hgm", "m/km"), ("vertical", "m/km"), ("slope", "m/m"), ("worms", "m"), ("highpass", "m")],
)
def test_units_of_a_derived_layer_follow_from_its_parent(derive, units):
    "Of heights in m; stating the same is fine, stating others is a mistake"
    parent = Layer(**NAMED | {"file": "a.tif", "name": "height"})
    reach = 9000 if derive == "highpass" else None
    content = {"name": "thing", "group": "g", "derive": derive, "of": "height", "reach": reach}
    assert derived(Layer(**content), parent).units == units
    assert derived(Layer(**content, units=units), parent).units == units
    with pytest.raises(ValueError, match=f"'thing': {derive} of 'height' is in {units}, not in ft"):
        derived(Layer(**content, units="ft"), parent)


def test_a_slope_needs_heights_in_metres():
    "Of a depth in km the same numbers would be wrong by 1000"
    parent = Layer(**NAMED | {"file": "a.tif", "name": "moho", "units": "km"})
    slope = Layer(name="thing", group="g", derive="slope", of="moho")
    with pytest.raises(ValueError, match="'thing': slope needs heights in m; 'moho' is in km"):
        derived(slope, parent)


def test_nothing_is_derived_of_classes():
    "Rock 3 less rock 1 is no rock"
    rock = Layer(**NAMED | {"file": "a.tif", "name": "rock", "kind": "categorical"})
    gradient = Layer(name="thing", group="g", derive="hgm", of="rock")
    with pytest.raises(ValueError, match="'thing': 'rock' holds classes, which have no hgm"):
        derived(gradient, rock)


def test_a_layer_may_name_its_part_of_the_mineral_system():
    "Of any kind; one of four, and none unless it is said"
    assert Layer(**NAMED, file="a.tif", mineral_system="trap").mineral_system == "trap"
    assert Layer(**NAMED, file="a.tif").mineral_system is None
    slope = {"derive": "hgm", "of": "moho", "mineral_system": "pathway"}
    assert Layer(name="thing", group="g", **slope).mineral_system == "pathway"
    assert "'source', 'pathway', 'trap' or 'preservation'" in refused(
        file="a.tif", mineral_system="luck"
    )
