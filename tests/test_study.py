import copy
import errno

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


def region(crs, bounds, resolution=2000):
    return study.Region(crs=crs, resolution=resolution, bounds=bounds)


def test_bounds_in_degrees_are_refused():
    "Also where they happen to be whole cells; 361 m are metres"
    for resolution in (2000, 0.5):
        with pytest.raises(ValueError, match="bounds 25, 63, 29, 65 look like degrees; .*TM35FIN"):
            region("EPSG:3067", (25, 63, 29, 65), resolution)
    assert region("EPSG:32631", (0, 0, 361, 361), 1).shape == (361, 361)


@pytest.mark.parametrize(
    ("crs", "bounds", "right"),
    [
        ("EPSG:3067", (400e3, 600e3, 7e6, 7.2e6), "400000, 7000000, 600000, 7200000"),
        ("EPSG:32635", (400e3, 600e3, 7e6, 7.2e6), "400000, 7000000, 600000, 7200000"),
        ("EPSG:3577", (-2e6, 2e6, -4e6, -1e6), "-2000000, -4000000, 2000000, -1000000"),
    ],
)
def test_bounds_in_the_order_of_a_gis_are_refused(crs, bounds, right):
    "xmin, xmax, ymin, ymax; the message gives them in the right order, which is then taken"
    with pytest.raises(ValueError, match=f"xmin, xmax, ymin, ymax; .* north: {right}"):
        region(crs, bounds)
    region(crs, [float(side) for side in right.split(",")])


@pytest.mark.parametrize(
    ("crs", "bounds"),
    [
        ("EPSG:32635", (200e3, 300e3, 700e3, 600e3)),  # would lie in the zone in either order
        ("EPSG:32631", (-300e3, 6e6, 160e3, 6.4e6)),  # west of the zone
        ("EPSG:5070", (0, 0, 600e3, 400e3)),  # mostly south of the United States
        ("EPSG:3413", (-2e6, -2e6, 1e6, 1e6)),  # around the pole
        ("EPSG:3035", (4e6, 3e6, 5e6, 5e6)),  # whose own axes are north, east
        ("EPSG:3832", (8e6, -2e6, 12e6, 2e6)),  # over the antimeridian
        ("+proj=laea +lat_0=65 +lon_0=27", (-50e3, -40e3, 50e3, 60e3)),  # area of use unknown
        ("+proj=utm +zone=35", (400e3, 600e3, 7e6, 7.2e6)),  # so that nothing can be said
    ],
)
def test_bounds_that_may_be_meant_pass(crs, bounds):
    "In or out of the CRS's area of use, as long as the other order makes no better sense"
    assert region(crs, bounds).bounds == bounds


def test_a_grid_of_too_many_cells_is_refused():
    "20,000 x 20,000 are the most; the message gives rows and columns"
    square = (400e3, 7e6, 420e3, 7.02e6)
    assert region("EPSG:3067", square, 1).shape == (20_000, 20_000)
    with pytest.raises(ValueError, match="20,001 rows x 20,000 columns, more than 400,000,000"):
        region("EPSG:3067", (400e3, 7e6, 420e3, 7_020_001), 1)
    with pytest.raises(ValueError, match="check the order of bounds .* and that resolution"):
        region("EPSG:3067", square, 1e-320)


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
    assert f"{said}: no such key" in refused(write, content)


def test_an_unknown_key_offers_the_one_that_was_meant(write, content):
    "The nearest of that place, in any case of letters; all of them if none is near"
    content["layers"][0]["unit"] = "m"
    content["regions"]["west"]["CRS"] = "EPSG:3067"
    content["targets"]["MVT"]["file"] = "d.csv"
    content["path"] = "here"
    content["paths"] = "there"
    message = refused(write, content)
    assert "layers > 'gravity' > unit: no such key; did you mean `units`?" in message
    assert "regions > west > CRS: no such key; did you mean `crs`?" in message
    assert "targets > MVT > file: no such key; there are types, radius\n" in message
    # Study.path is not for users to give, so it is not offered
    assert "paths: no such key; there are name, title" in message


def test_wrong_layers_are_not_also_called_too_few(write, content):
    "One line a layer, none on the list, which is empty only because all are wrong"
    for layer in content["layers"]:
        layer["unit"] = "m"
    assert len(refused(write, content).splitlines()) == 3
    content["layers"] = []
    assert "layers: Tuple should have at least 1 item" in refused(write, content)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda c: c["targets"]["MVT"].update(types="Au"),
            "MVT > types: must be a list, e.g. [Au]",
        ),
        (lambda c: c["targets"]["MVT"].update(types={}), "MVT > types: must be a list, e.g. [Au]"),
        (lambda c: c["targets"]["MVT"].update(types=[1]), "types > 0: must be text; put it in quo"),
        (lambda c: c.update(layers={"g": 1}), "layers: must be a list, each layer after a dash"),
        (
            lambda c: c["layers"][0].update(group=1),
            "'gravity' > group: must be text; put it in quo",
        ),
        (lambda c: c["layers"][0].update(crs=4326), "crs: must be text; write EPSG:4326"),
        (lambda c: c["regions"]["west"].update(crs=3067), "crs: must be text; write EPSG:3067"),
        (lambda c: c["deposits"].update(crs=3067), "deposits > crs: must be text; write EPSG:3067"),
        (lambda c: c["layers"][0].pop("name"), "layers > number 1: `name` is missing"),
        (lambda c: c["regions"]["west"].pop("resolution"), "west: `resolution` is missing"),
        (lambda c: c["layers"][0].update(valid_range=[1]), "valid_range: must be two numbers: low"),
    ],
)
def test_mistakes_are_told_in_plain_words(write, content, change, said):
    "What is wrong and what to write instead, without the words of the validator"
    change(content)
    assert said in refused(write, content)


@pytest.mark.parametrize("bounds", [[0, 600], [0, 0, 600, 400, 5], "0 0 6 4", ["a", 0, 600, 400]])
def test_bounds_are_four_numbers(write, content, bounds):
    "Too few, too many, a sentence or a word: one line for the whole"
    content["regions"]["west"]["bounds"] = bounds
    message = refused(write, content)
    assert message.endswith("west > bounds: must be four numbers: west, south, east, north")
    assert len(message.splitlines()) == 2


def test_a_region_called_bounds_has_messages_of_its_own(write, content):
    "Names of regions are not taken for keys"
    content["regions"]["bounds"] = content["regions"].pop("west") | {"crs": 5070}
    assert "regions > bounds > crs: must be text; write EPSG:5070" in refused(write, content)


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
    place = write(content)
    # by its path: the name alone finds no study of one's own
    assert study.load(place).remedy == f"run `mpm fetch {place}`"
    assert study.load("demo").remedy == "run `mpm fetch demo`"


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
    assert f"study: `{key}` is missing" in refused(write, content)


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
    said = "letters, digits, _ and - only, starting with a letter or digit"
    assert f"{key} > ../up: {said}" in refused(write, content)


@pytest.mark.parametrize("name", ["2nd", "a b", "a-b", ""])
def test_layer_names_are_plain_words(write, content, name):
    "Letters, digits and underscores"
    content["layers"][0]["name"] = name
    said = "name: letters, digits and _ only, starting with a letter"
    assert said in refused(write, content)


def test_a_folder_is_no_study(tmp_path):
    "Whatever it is called"
    for name in ("data", "data.yaml"):
        (tmp_path / name).mkdir()
        with pytest.raises(FileNotFoundError, match=f"{name} is a folder; name the YAML file"):
            study.load(str(tmp_path / name))


@pytest.mark.parametrize(
    ("method", "error", "said"),
    [
        ("read_text", ValueError, r"mine\.yaml cannot be read \(Permission denied\)"),
        ("is_file", FileNotFoundError, r"mine\.yaml cannot be reached \(Permission denied\)"),
    ],
)
def test_a_file_without_permission_is_named(write, content, monkeypatch, method, error, said):
    "The file's own, or that of a folder above; the superuser has all, so the refusal is put on"
    path = write(content)

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(study.Path, method, refuse)
    with pytest.raises(error, match=said):
        study.load(path)


def test_what_looks_like_a_date_and_is_none_is_named(write):
    "YAML reads dates itself"
    assert "is not readable YAML: month must be" in refused(write, "name: 2020-13-01\n")


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
