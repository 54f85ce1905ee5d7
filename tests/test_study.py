import copy

import pytest
import yaml

from mpm import study

CONTENT = {
    "name": "mine",
    "fetch": "none",
    "regions": {"west": {"crs": "EPSG:5070", "resolution": 100, "bounds": [0, 0, 600, 400]}},
    "layers": [
        {"name": "gravity", "group": "geophysics", "units": "mGal", "file": "{region}/g.tif"},
        {"name": "rock", "group": "geology", "units": "1", "file": "r.shp", "kind": "categorical"},
    ],
    "deposits": {"file": "d.csv", "type": "kind"},
    "targets": {"MVT": {"types": ["MVT"], "radius": 50}, "all": {}},
}


@pytest.fixture
def content():
    return copy.deepcopy(CONTENT)


@pytest.fixture
def write(tmp_path):
    "Write a study file from a dict, or from text, and return its path"

    def write(content):
        path = tmp_path / "mine.yaml"
        text = content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def refused(write, content):
    with pytest.raises(ValueError) as caught:
        study.load(write(content))
    assert "mine.yaml" in str(caught.value)
    return str(caught.value)


def test_a_study_reads_as_written(write, content):
    "Values, defaults and the grid's shape"
    mine = study.load(write(content))
    assert mine.regions["west"].shape == (4, 6)
    assert [layer.kind for layer in mine.layers] == ["continuous", "categorical"]
    assert mine.target("MVT").types == ("MVT",)
    assert (mine.target("all").types, mine.target("all").radius) == (None, 0)
    assert (mine.deposits.x, mine.deposits.y, mine.deposits.crs) == (
        "longitude",
        "latitude",
        "EPSG:4326",
    )


@pytest.mark.parametrize("name", study.studies())
def test_every_study_of_the_compendium_is_valid(name):
    "Names fit their files; every layer says why it is there and who made it"
    known = study.load(name)
    assert known.name == name
    assert known.raw.parts[-3:-1] == ("data", "raw")
    assert known.title and known.description and known.licence
    assert all(layer.why and layer.source for layer in known.layers)


def test_an_unknown_study_offers_the_nearest():
    "A slip in a name is answered with the right one, nonsense with all names"
    with pytest.raises(FileNotFoundError, match="did you mean us_midcontinent_mini"):
        study.load("us_midcontinent")
    with pytest.raises(FileNotFoundError, match="there are .*magmatic_nickel_mini"):
        study.load("qqqq")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml does not exist"):
        study.load("nowhere.yaml")


def test_two_layers_may_not_share_a_name(write, content):
    "The duplicate is named"
    content["layers"][1]["name"] = "gravity"
    assert "duplicate layer name: gravity" in refused(write, content)


@pytest.mark.parametrize("key", ["name: mine", "targets: {all: {}}"])
def test_a_key_given_twice_is_refused(write, content, key):
    "YAML would silently keep the last one; the message gives the line"
    text = yaml.safe_dump(content, sort_keys=False)
    message = refused(write, text + key)
    assert f"duplicate name '{key.split(':')[0]}'" in message
    assert f"line {text.count(chr(10)) + 1}" in message


def test_a_region_given_twice_is_refused(write, content):
    "Also below the top level"
    text = yaml.safe_dump(content, sort_keys=False)
    assert "duplicate name 'west'" in refused(write, text.replace("  west:", "  west: {}\n  west:"))


def test_anchors_and_merges_work(write, content):
    "What layers share can be written once, and overridden"
    layers = """layers:
- &first {name: a, group: g, units: m, file: a.tif}
- {<<: *first, name: b, file: b.tif}
"""
    del content["layers"]
    mine = study.load(write(yaml.safe_dump(content) + layers))
    assert [(layer.name, layer.units, layer.file) for layer in mine.layers] == [
        ("a", "m", "a.tif"),
        ("b", "m", "b.tif"),
    ]


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ([0, 0, 650, 400], "west: east-west extent 650 m is not a whole number of 100 m cells"),
        ([0, 0, 600, 401], "west: north-south extent 401 m is not a whole number of 100 m cells"),
        ([600, 0, 0, 400], "west < east"),
        ([0, 400, 600, 400], "south < north"),
        ([0, 0, 600], "bounds"),
        ([0, 0, 600, float("inf")], "finite"),
        ([0, 0, 600, float("nan")], "finite"),
    ],
)
def test_bounds_must_be_whole_cells(write, content, bounds, message):
    "The message gives the region, the extent and the cell size"
    content["regions"]["west"]["bounds"] = bounds
    assert message in refused(write, content)


@pytest.mark.parametrize("resolution", [0, -100, float("inf"), "fine"])
def test_resolution_must_be_positive(write, content, resolution):
    "Zero, negative, infinite and words are refused"
    content["regions"]["west"]["resolution"] = resolution
    assert "regions > west > resolution" in refused(write, content)


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (lambda c: c, "colour"),
        (lambda c: c["layers"][0], "layers > 'gravity' > colour"),
        (lambda c: c["regions"]["west"], "regions > west > colour"),
        (lambda c: c["deposits"], "deposits > colour"),
        (lambda c: c["targets"]["MVT"], "targets > MVT > colour"),
    ],
)
def test_an_unknown_key_is_refused(write, content, place, said):
    "Wherever it stands; layers are called by name, not by number"
    place(content)["colour"] = "red"
    assert f"{said}: Extra inputs are not permitted" in refused(write, content)


def test_a_misspelt_kind_lists_the_right_ones(write, content):
    "The layer is named and the kinds there are given"
    content["layers"][1]["kind"] = "catgorical"
    message = refused(write, content)
    assert "layers > 'rock' > kind" in message
    assert "'continuous', 'categorical', 'fraction', 'distance', 'density', 'points'" in message


def test_a_layer_that_makes_no_sense_is_refused(write, content):
    "Numbers have no classes; mpm.layers has the rules"
    content["layers"][0]["classes"] = [1, 2]
    assert "layer 'gravity': classes make no sense for kind 'continuous'" in refused(write, content)


@pytest.mark.parametrize(
    ("crs", "said"),
    [
        ("EPSG:1", "'EPSG:1' is not a CRS that pyproj knows"),
        ("EPSG:4326", "EPSG:4326 is not projected in metres"),
        ("EPSG:2263", "EPSG:2263 is not projected in metres"),
    ],
)
def test_a_region_needs_a_projected_crs_in_metres(write, content, crs, said):
    "Unknown ones, degrees and feet are refused before any file is opened"
    content["regions"]["west"]["crs"] = crs
    assert f"regions > west > crs: {said}" in refused(write, content)


STEEP = {"name": "steep", "group": "geophysics", "derive": "hgm", "of": "gravity"}


def test_a_derived_layer_knows_its_file_and_units(write, content):
    "Those of the layer it is computed from, also through another derived layer"
    content["layers"][0]["source"] = "a survey"
    far = STEEP | {"name": "far", "derive": "worms", "of": "steep", "source": "me"}
    content["layers"] += [STEEP, far]
    mine = study.load(write(content))
    assert [mine.layer(name).units for name in ("steep", "far")] == ["mGal/km", "m"]
    assert [mine.layer(name).source for name in ("steep", "far")] == ["a survey", "me"]
    for name in ("steep", "far"):
        assert mine.file(mine.layer(name), "west") == mine.raw / "west" / "g.tif"


@pytest.mark.parametrize("parent", ["late", "steep", "granite"])
def test_a_derived_layer_comes_after_its_parent(write, content, parent):
    "One that comes later, the layer itself and one there is not: the message lists those before"
    late = {"name": "late", "group": "g", "units": "m", "file": "z.tif"}
    content["layers"] += [STEEP | {"of": parent}, late]
    message = refused(write, content)
    assert f"layer 'steep' is derived of '{parent}', which is no layer before it" in message
    assert "before it are gravity, rock" in message


def test_classes_have_no_gradient(write, content):
    content["layers"].append(STEEP | {"of": "rock"})
    assert "layer 'steep': 'rock' holds classes, which have no hgm" in refused(write, content)


def test_an_unknown_layer_offers_the_nearest(write, content):
    "layer() helps"
    with pytest.raises(KeyError, match="has no layer 'gravty'; nearest are gravity"):
        study.load(write(content)).layer("gravty")


@pytest.mark.parametrize("name", ["evidence", "valid", "kind", "gravity"])
def test_targets_have_names_of_their_own(write, content, name):
    "They stand beside the evidence in the cube, whose parts they must not replace"
    content["targets"][name] = {}
    assert f"target '{name}' is called like a layer or another part" in refused(write, content)


def test_deposits_may_be_grouped(write, content):
    content["deposits"]["group"] = "camp"
    assert study.load(write(content)).deposits.group == "camp"


def test_the_remedy_for_a_missing_file_depends_on_where_files_come_from(write, content):
    assert "put the file there" in study.load(write(content)).remedy
    content["fetch"] = "registry"
    assert study.load(write(content)).remedy == "run `mpm fetch mine`"


def test_target_types_need_a_type_column(write, content):
    "The message says what to add"
    del content["deposits"]["type"]
    assert "target 'MVT' selects types" in refused(write, content)
    assert "add `type: <column>`" in refused(write, content)


@pytest.mark.parametrize("key", ["regions", "layers", "targets"])
def test_a_study_needs_one_of_each(write, content, key):
    "No region, layer or target is no study"
    content[key] = type(content[key])()
    assert key in refused(write, content)
    del content[key]
    assert f"{key}: Field required" in refused(write, content)


def test_every_mistake_is_told_at_once(write, content):
    "One line each"
    content["layers"][0]["band"] = 0
    content["targets"]["MVT"]["radius"] = -1
    message = refused(write, content)
    assert "layers > 'gravity' > band" in message
    assert "targets > MVT > radius" in message
    assert len(message.splitlines()) == 3


@pytest.mark.parametrize("key", ["regions", "targets"])
def test_names_must_fit_file_names(write, content, key):
    "Regions and targets name files, so no slashes or dots"
    content[key]["../up"] = next(iter(content[key].values()))
    assert f"{key} > ../up" in refused(write, content)


@pytest.mark.parametrize("name", ["2nd", "a b", "a-b", ""])
def test_layer_names_are_plain_words(write, content, name):
    "Letters, digits and underscores"
    content["layers"][0]["name"] = name
    assert "name: String should match" in refused(write, content)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words"])
def test_a_file_without_keys_is_no_study(write, text):
    "A list, a sentence or nothing"
    assert "holds no top-level keys" in refused(write, text)


def test_broken_yaml_is_named(write):
    "The message gives the file and the line"
    message = refused(write, "name: mine\nlayers: [\n")
    assert "is not readable YAML" in message
    assert "line 3" in message


def test_ones_own_study_has_its_data_beside_it(write, content, tmp_path, monkeypatch):
    "The folder is relative to the YAML, wherever the program runs"
    path = write(content)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert study.load(path).raw == tmp_path / "mine"
    assert study.load("../mine.yaml").raw == tmp_path / "mine"
    content["folder"] = "../data"
    mine = study.load(write(content))
    assert mine.raw == tmp_path / ".." / "data"
    assert mine.file(mine.layers[0], "west") == mine.raw / "west" / "g.tif"
    content["folder"] = str(elsewhere)
    assert study.load(write(content)).raw == elsewhere


def test_a_study_of_the_compendium_by_name_or_path_is_one(content, tmp_path, monkeypatch):
    "Its data lie below data/raw, also where MPM_HOME is relative"
    folder = tmp_path / "home" / "data" / "studies"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPM_HOME", "home")
    raw = tmp_path / "home" / "data" / "raw" / "mine"
    assert study.load("mine").raw == raw
    assert study.load("home/data/studies/mine.yaml").raw == raw


def test_an_unknown_target_lists_those_there_are(write, content):
    "target() helps"
    with pytest.raises(KeyError, match="no target 'CD'; it has MVT, all"):
        study.load(write(content)).target("CD")


def test_the_content_hash_sees_content_only(write, content):
    "Comments do not change it, a value does"
    path = write(content)
    before = study.content_hash(study.load(path))
    text = yaml.safe_dump(content, sort_keys=True)
    assert study.content_hash(study.load(write("# a comment\n" + text))) == before
    content["targets"]["MVT"]["radius"] = 60
    assert study.content_hash(study.load(write(content))) != before
