"""Study files that are wrong: a table of plain slips, and any mutation of a sound one."""

import copy
import string
from functools import partial

import pytest
import yaml
from bad_inputs import Bad, edit, judge, nothing
from ground import STUDY
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpm.study import Study, load

SOUND = yaml.safe_load(STUDY)


def write(text):
    "Put another text in the place of the study file"
    content = text if isinstance(text, bytes) else text.encode()
    return lambda home: (home / "toy.yaml").write_bytes(content)


def add(line):
    return lambda home: (home / "toy.yaml").write_text(f"{STUDY}{line}\n")


Bomb = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    + [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 9)]
)
LAYER = "file: gravity.tif}"
Slip = partial(Bad, "study file")
SLIPS = [
    Slip("missing", lambda home: (home / "toy.yaml").unlink(), ["toy.yaml", "does not exist"]),
    Slip("a folder", nothing, ["data is a folder; name the YAML"], "check data"),
    Slip("misspelt name", nothing, ["'dmo'", "did you mean demo"], "check dmo"),
    Slip("empty", write(""), ["toy.yaml", "holds no top-level keys"]),
    Slip("a list", write("- name: toy"), ["toy.yaml", "holds no top-level keys"]),
    Slip("another encoding", write(b"title: \xff\xfe\xe9"), ["toy.yaml", "not readable YAML"]),
    Slip("bytes of a picture", write(b"\x89PNG\r\n\0\0"), ["toy.yaml", "not readable YAML"]),
    Slip("tabs", write("regions:\n\twest: 1"), ["toy.yaml", "line 2"]),
    Slip("a bracket left open", edit("toy.yaml", "5006000]}", "5006000}"), ["toy.yaml", "line 5"]),
    Slip("a key twice", add("name: other"), ["toy.yaml", "duplicate name 'name'"]),
    Slip("an unknown key", add("epochs: 3"), ["toy.yaml", "epochs: no such key"]),
    Slip("a misspelt key", edit("toy.yaml", "resolution", "resoluton"), ["west", "`resolution`?"]),
    Slip("a key of the program's own", add("path: /etc"), ["toy.yaml", "path: no such key"]),
    Slip("no layers", edit("toy.yaml", "layers:", "titel:"), ["`layers` is missing", "titel"]),
    Slip(
        "a number for a name", edit("toy.yaml", "name: gravity", "name: 7"), ["layers > 7 > name"]
    ),
    Slip("a blank in a name", edit("toy.yaml", "name: toy", "name: my toy"), ["name: letters"]),
    Slip("a name that climbs", edit("toy.yaml", "name: toy", "name: ../toy"), ["name: letters"]),
    Slip("a region that climbs", edit("toy.yaml", "  west", "  ../west"), ["regions > ../west"]),
    Slip(
        "a zero byte in a file name",
        edit("toy.yaml", LAYER, r'file: "gravity.tif\0"}'),
        ["'gravity' > file"],
    ),
    Slip(
        "a line break in a file name",
        edit("toy.yaml", LAYER, r'file: "gravity\n.tif"}'),
        ["'gravity'", "file"],
    ),
    Slip(
        "a file name of 5000 letters",
        edit("toy.yaml", "gravity.tif", "g" * 5000 + ".tif"),
        ["'gravity'"],
    ),
    Slip("an unknown CRS", edit("toy.yaml", "EPSG:32633", "EPSG:99999"), ["EPSG:99999", "CRS"]),
    Slip("a CRS in degrees", edit("toy.yaml", "EPSG:32633", "EPSG:4326"), ["projected in metres"]),
    Slip(
        "bounds in degrees",
        edit("toy.yaml", "[500000, 4966000, 540000, 5006000]", "[15, 44, 16, 45]"),
        ["regions > west", "look like degrees"],
    ),
    Slip("bounds of three numbers", edit("toy.yaml", ", 5006000]", "]"), ["four numbers"]),
    Slip(
        "bounds exchanged",
        edit("toy.yaml", "[500000, 4966000", "[600000, 4966000"),
        ["west < east"],
    ),
    Slip(
        "resolution 0", edit("toy.yaml", "resolution: 1000", "resolution: 0"), ["west > resolution"]
    ),
    Slip(
        "resolution not a number",
        edit("toy.yaml", "resolution: 1000", "resolution: .nan"),
        ["west > resolution"],
    ),
    Slip(
        "cells of a millimetre",
        edit("toy.yaml", "resolution: 1000", "resolution: 0.001"),
        ["more than", "cells larger"],
    ),
    Slip(
        "a tiny resolution",
        edit("toy.yaml", "resolution: 1000", "resolution: 1.0e-300"),
        ["more than", "cells larger"],
    ),
    Slip(
        "a number of 400 digits",
        edit("toy.yaml", "resolution: 1000", "resolution: 1" + "0" * 400),
        ["west > resolution"],
    ),
    Slip(
        "a number of 5000 digits",
        edit("toy.yaml", "resolution: 1000", "resolution: " + "9" * 5000),
        ["toy.yaml"],
    ),
    Slip(
        "a layer twice", edit("toy.yaml", "name: depth", "name: gravity"), ["duplicate", "gravity"]
    ),
    Slip(
        "derived of nothing",
        edit("toy.yaml", "units: km, file: depth.nc", "derive: hgm, of: grav"),
        ["'depth'", "'grav'", "no layer before"],
    ),
    Slip(
        "no radius but a text", edit("toy.yaml", "radius: 1500", "radius: wide"), ["MVT > radius"]
    ),
    Slip(
        "types without a column", edit("toy.yaml", "type: type, ", ""), ["'MVT'", "type: <column>"]
    ),
    Slip(
        "a Python object",
        add('title: !!python/object/apply:os.system ["touch hacked"]'),
        ["toy.yaml", "python/object"],
    ),
    Slip("nested 2000 deep", add("title: " + "[" * 2000 + "]" * 2000), ["toy.yaml", "nested"]),
    Slip("a YAML bomb", add(Bomb), ["toy.yaml", "a0: no such key"]),
    Slip("an alias of itself", add("title: &a [*a]"), ["toy.yaml"]),
    Slip("a list for a key", add("? [a, b]\n: 1"), ["toy.yaml"]),
]


@pytest.mark.parametrize("bad", SLIPS, ids=str)
def test_a_bad_study_file_is_explained_and_harms_nothing(bad, home, capsys, record_property):
    "File, entry and remedy are named, and earlier results stay"
    judge(bad, home, capsys, record_property)
    assert not (home / "hacked").exists()


# Any mutation: what is drawn replaces, or joins, any part of the study


def paths(content, there=()):
    "Yield the place of every part of a study"
    yield there
    if isinstance(content, dict | list):
        known = content.items() if isinstance(content, dict) else enumerate(content)
        for key, child in known:
            yield from paths(child, (*there, key))


PLACES = [each for each in paths(SOUND) if each]
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
ODD = st.sampled_from(
    [0, -1, 10**400, 2**63, 1e308, float("inf"), float("nan"), "", "\0", "\ud800", "..", "/", "~"]
    + ["EPSG:4326", "{region}", "{", "%s", "null", "💎", "a" * 3000, "=cmd", "<script>", None, True]
)
WHATEVER = st.recursive(
    ODD | st.integers() | st.floats() | TEXT | st.dates() | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | ODD, inner, max_size=3),
    max_leaves=5,
)
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["drop", "set", "add", "copy", "wrap"]),
        st.sampled_from(PLACES),
        st.sampled_from(PLACES),
        WHATEVER,
    ),
    min_size=1,
    max_size=3,
)


def mutate(content, change):
    "Drop a part, set it to something else, put something beside it, copy another, wrap it"
    how, place, other, value = change
    try:
        parent = part(content, place[:-1])
        if how == "drop":
            del parent[place[-1]]
        elif how == "set":
            parent[place[-1]] = value
        elif how == "copy":
            parent[place[-1]] = copy.deepcopy(part(content, other))
        elif how == "wrap":
            parent[place[-1]] = [parent[place[-1]]]
        elif isinstance(parent, dict):
            parent[value if isinstance(value, str | int | float) else str(value)] = value
        else:
            parent.append(value)
    except (KeyError, IndexError, TypeError):
        return  # an earlier change took the place away


def part(content, place):
    for key in place:
        content = content[key]
    return content


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "toy.yaml"


def is_refused(file):
    "A study, or one message that names the file: never another exception"
    try:
        found = load(str(file))
    except ValueError as error:
        message = str(error)
        assert message.startswith(f"{file} ") and len(message.splitlines()) >= 1
        return True
    assert isinstance(found, Study) and found.path == file
    assert all("\0" not in str(found.file(layer, "r")) for layer in found.layers)
    return False


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(CHANGES)
def test_any_mutation_of_a_study_is_a_study_or_a_message(file, changes):
    "Parts dropped, replaced, added, exchanged and nested, with numbers and texts of all sorts"
    content = copy.deepcopy(SOUND)
    for change in changes:
        mutate(content, change)
    file.write_bytes(yaml.dump(content, allow_unicode=True).encode("utf-8", "surrogatepass"))
    is_refused(file)


LETTERS = "\t\n\0 {}[]&*!|>%@`'\"#:-?," + string.ascii_letters + "é💎\x85\u2028\ufeff"


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, len(STUDY)),
    st.integers(0, 40),
    st.text(st.sampled_from(LETTERS), max_size=8)
    | st.sampled_from(
        ["!!python/name:os.system ", "!!binary ", "&a ", "*a", "<<: ", "---\n", "...", "2026-13-45"]
    ),
)
def test_any_slip_of_the_pen_is_a_study_or_a_message(file, place, gone, typed):
    "Letters lost and others typed in their place, anywhere in the file"
    file.write_text(STUDY[:place] + typed + STUDY[place + gone :], encoding="utf-8")
    is_refused(file)
