"""Nothing that is read can run code, climb out of its folder, or come from an unchecked place."""

import ast
import json
import pickle
import re
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from helpers import tiny, write_tif
from requests import Response

from mpm import artefacts, checkpoints, classifier, datacube, fetch, mae, rasters, web_page
from mpm.layers import Layer
from mpm.study import _UniqueKeys, load

ROOT = Path(__file__).parents[1]
SOURCES = {path.name: ast.parse(path.read_text("utf-8")) for path in (ROOT / "mpm").glob("*.py")}
FORBIDDEN = {  # what runs code that it reads, or takes archives apart
    "eval", "exec", "compile", "__import__", "breakpoint",
    "os.system", "os.popen", "os.execv", "os.spawnv", "runpy.run_path",
    "pickle.load", "pickle.loads", "cloudpickle.load", "dill.load", "shelve.open", "marshal.loads",
    "joblib.load", "joblib.dump", "pd.read_pickle", "pandas.read_pickle", "torch.load",
    "yaml.unsafe_load", "yaml.full_load", "yaml.UnsafeLoader", "yaml.FullLoader", "yaml.Loader",
    "pd.eval", "DataFrame.eval", "ctypes.cdll.LoadLibrary",
    "tarfile.open", "zipfile.ZipFile", "shutil.unpack_archive", "pooch.Unzip", "pooch.Untar",
}  # fmt: skip


def calls(tree):
    "Yield each call of a module, and the name of what is called"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def keywords(call):
    return {each.arg: ast.unparse(each.value) for each in call.keywords}


def test_the_package_calls_nothing_that_runs_what_it_reads():
    "Neither pickles, nor unsafe YAML, nor code in texts, nor a shell, nor archives"
    found = [(module, name) for module, tree in SOURCES.items() for _, name in calls(tree)]
    assert len(found) > 5000  # else the scan sees nothing
    assert [each for each in found if each[1] in FORBIDDEN] == []


def test_the_package_imports_no_module_that_unpickles():
    "Under whatever name its functions would be called"
    bad = {"pickle", "cloudpickle", "dill", "shelve", "marshal", "zipfile", "tarfile"}
    for module, tree in SOURCES.items():
        names = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {each.name for each in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {f"{node.module}.{each.name}" for each in node.names}
        assert not {name for name in names if name.split(".")[0] in bad}, module


def test_options_that_would_allow_it_are_left_alone():
    "No allow_pickle, no shell, no certificates unchecked; YAML by a loader made of the safe one"
    for module, tree in SOURCES.items():
        for call, name in calls(tree):
            given = keywords(call)
            assert given.get("allow_pickle", "False") == "False", module
            assert given.get("weights_only", "True") == "True", module
            assert given.get("shell", "False") == "False", module
            assert given.get("verify", "True") == "True", module
            if name in ("yaml.load", "yaml.load_all"):
                assert given["Loader"] == "_UniqueKeys", module
    assert issubclass(_UniqueKeys, yaml.SafeLoader)


class Payload:
    "What would leave a file behind if it were unpickled"

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return Path.touch, (self.place,)


@pytest.fixture
def trap(tmp_path):
    "A payload, whose file is not there in the end"
    place = tmp_path / "hacked"
    pickle.loads(pickle.dumps(Payload(place)))
    assert place.exists()  # it does go off where it is let
    place.unlink()
    yield Payload(place)
    assert not place.exists()


def disguised(trap, path):
    "A torch checkpoint with a payload, under the name of a file of ours"
    torch.save({"weights": trap}, path)
    return path


def test_a_pickled_model_is_refused_unread(trap, tmp_path):
    "As weights of a backbone, of a classifier, and as a checkpoint"
    model = mae.build(tiny(), seed=0)
    place = disguised(trap, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="model.safetensors is damaged"):
        mae.load_weights(model, place)
    with pytest.raises(ValueError, match=r"checkpoint .*model.safetensors is damaged"):
        checkpoints.read(place)
    head = classifier.Classifier(model.encoder)
    place.write_bytes(pickle.dumps(trap))
    with pytest.raises(ValueError, match="model.safetensors is damaged"):
        mae.load_weights(head, place)


def test_a_pickled_array_is_refused_unread(trap, tmp_path):
    "As raster, table or JSON, and in a cube whose Zarr asks for a pickle"
    content = pickle.dumps(np.array([trap], object))
    for name in ("a.tif", "a.json", "a.parquet"):
        (tmp_path / name).write_bytes(content)
    layer = Layer(name="a", group="g", units="1", file="a.tif")
    with pytest.raises(OSError, match="a.tif"):
        rasters.describe(layer, tmp_path / "a.tif")
    with pytest.raises(ValueError, match="a.json is not valid JSON"):
        artefacts.read_json(tmp_path / "a.json")
    with pytest.raises(ValueError, match="a.parquet is damaged"):
        artefacts.read_table(tmp_path / "a.parquet", "01_data_preparation")
    with pytest.raises(ValueError, match="pickle"):
        datacube.read(pickled_cube(tmp_path / "a.zarr", content))


def pickled_cube(place, content):
    "A Zarr store with a variable of Python objects, which numcodecs would unpickle"
    plane = np.zeros((1, 4, 4), "float32")
    datacube.write(xr.Dataset({"evidence": (("layer", "y", "x"), plane)}), place)
    meta = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "compressor": None}
    meta |= {"fill_value": None, "order": "C", "filters": [{"id": "pickle", "protocol": 5}]}
    (place / "evil").mkdir()
    (place / "evil" / "0").write_bytes(content)
    (place / "evil" / ".zarray").write_text(json.dumps(meta))
    summary = json.loads((place / ".zmetadata").read_text())
    summary["metadata"]["evil/.zarray"] = meta
    summary["metadata"]["evil/.zattrs"] = {"_ARRAY_DIMENSIONS": ["layer"]}
    (place / ".zmetadata").write_text(json.dumps(summary))
    return place


STUDY = """
name: mine
regions: {west: {crs: "EPSG:32633", resolution: 1000, bounds: [500000, 5000000, 506000, 5006000]}}
layers: [{name: gravity, group: g, units: mGal, file: gravity.tif}]
deposits: {file: deposits.csv}
targets: {all: {}}
"""


@pytest.mark.parametrize(
    "line",
    [
        "title: !!python/object/apply:pathlib.Path.touch [{hacked}]",
        'title: !!python/object/new:os.system ["touch {hacked}"]',
        "title: !!python/name:os.system",
        "? !!python/object/apply:os.system ['touch {hacked}']\n: 1",
    ],
)
def test_a_study_file_runs_no_code(line, trap, tmp_path):
    "Tags that make Python objects are refused wherever they stand"
    path = tmp_path / "mine.yaml"
    path.write_text(STUDY + line.format(hacked=trap.place) + "\n")
    with pytest.raises(ValueError, match="mine.yaml is not readable YAML.*python/"):
        load(str(path))


@pytest.mark.parametrize("entry", ["derive", "method", "kind"])
def test_a_study_says_how_by_names_only(entry, tmp_path):
    "No entry of a layer is an expression: what is computed is one of a list"
    path = tmp_path / "mine.yaml"
    path.write_text(STUDY.replace("units: mGal", f"units: mGal, {entry}: '__import__(\"os\")'"))
    with pytest.raises(ValueError, match=f"gravity.*{entry}: Input should be '"):
        load(str(path))


def test_a_virtual_raster_runs_no_code(trap, tmp_path):
    "GDAL could call Python from a VRT; it is not switched on"
    write_tif(tmp_path / "a.tif", np.ones((6, 6), "float32"))
    code = f"import pathlib\ndef f(*_, **__):\n    pathlib.Path({str(trap.place)!r}).touch()\n"
    (tmp_path / "a.vrt").write_text(
        '<VRTDataset rasterXSize="6" rasterYSize="6"><SRS>EPSG:32633</SRS>'
        "<GeoTransform>500000,1000,0,5006000,0,-1000</GeoTransform>"
        '<VRTRasterBand dataType="Float32" band="1" subClass="VRTDerivedRasterBand">'
        "<PixelFunctionType>f</PixelFunctionType>"
        f"<PixelFunctionLanguage>Python</PixelFunctionLanguage><PixelFunctionCode><![CDATA[{code}]]>"
        '</PixelFunctionCode><SimpleSource><SourceFilename relativeToVRT="1">a.tif</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    layer = Layer(name="a", group="g", units="1", file="a.vrt")
    with pytest.raises(OSError):
        rasters.read(rasters.describe(layer, tmp_path / "a.vrt"), (0, 6), (0, 6))


def test_a_file_of_a_study_is_never_an_address(tmp_path, monkeypatch):
    "GDAL's paths into the network are taken for files, which are missing"
    for name in ("/vsicurl/https://example.org/a.tif", "https://example.org/a.tif"):
        path = tmp_path / "mine.yaml"
        path.write_text(STUDY.replace("gravity.tif", name))
        with pytest.raises(FileNotFoundError, match="lacks files"):
            fetch.fetch(load(str(path)))


# Archives and downloads


@pytest.mark.parametrize("name", ["../outside.txt", "/tmp/mpm_outside.txt", "link"])
def test_archives_are_never_unpacked(name, tmp_path):
    "One whose members climb out is a damaged raster, and stays shut"
    place = tmp_path / "data" / "a.tif"
    place.parent.mkdir()
    with zipfile.ZipFile(place, "w") as archive:
        member = zipfile.ZipInfo(name)
        member.external_attr = 0o120777 << 16 if name == "link" else 0
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(OSError):
        rasters.describe(Layer(name="a", group="g", units="1", file="a.tif"), place)
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "a.tif"]
    assert not Path("/tmp/mpm_outside.txt").exists()


def test_every_registered_file_comes_by_https_and_has_a_checksum():
    "From one host, at a fixed commit, whatever its row says"
    studies = {line.split(",")[0] for line in (ROOT / "data/registry.csv").open().readlines()[1:]}
    assert len(studies) == 3
    for study in studies:
        for entry in fetch.read_registry(ROOT / "data/registry.csv", study):
            assert entry.url.startswith("https://raw.githubusercontent.com/")
            assert re.fullmatch("[0-9a-f]{64}", entry.sha256) and entry.bytes > 0


def test_nothing_else_is_fetched_from_an_address():
    "One function of one module opens addresses; others only name them"
    for module, tree in SOURCES.items():
        for _, name in calls(tree):
            is_download = name.split(".")[0] in ("requests", "urllib", "httpx", "socket", "ftplib")
            is_download |= name in ("pooch.HTTPDownloader", "pooch.retrieve", "urlopen", "get_data")
            assert not is_download or module == "fetch.py", f"{module}: {name}"


@pytest.mark.parametrize(
    ("location", "refused"),
    [("http://example.org/a", True), ("//example.org/a", False), ("/a", False), ("ftp://x", True)],
)
def test_a_download_is_not_sent_on_unencrypted(location, refused):
    "A redirect to another protocol is an error, before anything is asked for there"
    answer = Response()
    answer.status_code, answer.url = 302, "https://raw.githubusercontent.com/owner/maps"
    answer.headers["location"] = location
    if refused:
        with pytest.raises(ValueError, match=f"sends on to {location}, which is not https"):
            fetch._only_https(answer)
    else:
        fetch._only_https(answer)


# What people open


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_hold_plain_python(path):
    "No shell line, no magic, no pickle, nothing that runs a text"
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            assert not re.search(r"^\s*[!%]|\?$", source, re.MULTILINE)
            assert "get_ipython" not in source
            assert not {name for _, name in calls(ast.parse(source))} & FORBIDDEN


class Tags(HTMLParser):
    "The tags of a page, and what its scripts of data say"

    def __init__(self):
        super().__init__()
        self.found, self.inside, self.texts = [], "", {}

    def handle_starttag(self, tag, attrs):
        self.found.append(tag)
        self.inside = dict(attrs).get("id", tag)

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        self.texts[self.inside] = self.texts.get(self.inside, "") + data


EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"


def test_a_web_map_shows_names_as_text():
    "A deposit, a study, its licence and its facts called <script> add no tag to the page"
    from bokeh.document import Document
    from bokeh.models import Div

    def page(text):
        document = Document()
        document.add_root(Div(text="", tags=[text]))
        study = SimpleNamespace(name=text, title=text, licence=text, citation=text)
        return web_page.page(document, study, text, {"preset": text, "calibration": text})

    plain, evil = Tags(), Tags()
    plain.feed(page("a deposit"))
    evil.feed(page(EVIL))
    assert evil.found == plain.found
    assert EVIL in evil.texts["data"].replace("<\\/", "</")
    assert EVIL in evil.texts["title"] and EVIL in evil.texts["h1"]
