"""The site of `make docs`: whole, closed in itself, and nothing in it run anew."""

import ast
import base64
import os
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from packaging.requirements import Requirement

from mpm import fetch
from mpm.study import load, studies

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "docs"))
import pages  # noqa: E402

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MODULES = sorted(path for path in (ROOT / "mpm").glob("*.py") if path.stem != "__init__")
# what a browser fetches by itself when it opens a page
LOADED = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src")}


class Page(HTMLParser):
    """What one page of the site says: its text, its anchors, what it links to and what it loads."""

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.loads, self.words, self.inline = set(), set(), set(), [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        "Keep identifiers and addresses"
        for key, value in attributes:
            if key == "id":
                self.ids.add(value)
            elif (tag, key) in LOADED:
                self.loads.add(value)
            elif key == "href":
                self.links.add(value)
        self.tag = tag

    def handle_data(self, data):
        "Keep the text, apart from what is style or script"
        (self.inline if self.tag in ("script", "style") else self.words).append(data)

    def handle_endtag(self, tag):
        "What follows a script is text again"
        self.tag = None

    tag = None


def build(source, folder):
    """Make the site from a project's folder, as `make docs` does; return site and result."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", source / "docs"]
    command += ["-d", folder / "doctrees", source, folder / "site"]
    # a proxy that refuses: whatever asked for another host would fail
    nowhere = dict.fromkeys(["http_proxy", "https_proxy", "HTTPS_PROXY"], "http://127.0.0.1:9")
    return folder / "site", subprocess.run(
        list(map(str, command)), env=os.environ | nowhere, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site."""
    place, result = build(ROOT, tmp_path_factory.mktemp("docs"))
    assert result.returncode == 0, result.stderr[-3000:]
    assert not result.stderr
    return place


@pytest.fixture(scope="module")
def read(site):
    """Pages of the site by path below it."""
    return {path.relative_to(site).as_posix(): Page(path) for path in sorted(site.rglob("*.html"))}


def test_every_link_leads_somewhere(site, read):
    "Pages, pictures, files and anchors within pages, of the site itself"
    dead = []
    for name, page in read.items():
        for address in page.links | page.loads:
            parts = urlsplit(address)
            if parts.scheme in ("http", "https", "mailto", "data"):
                continue
            path = (site / name).parent / unquote(parts.path) if parts.path else site / name
            target = os.path.relpath(path.resolve(), site)
            known = target not in read or parts.fragment in read[target].ids | {""}
            if not path.is_file() or not known:
                dead.append(f"{name}: {address}")
    assert not dead


def test_no_page_loads_anything_from_another_host(site, read):
    "No script, style, font or picture: the site works where there is no network"
    elsewhere = r"url\(\s*[\"']?(?:https?:)?//|@import\s+[\"'](?:https?:)?//"
    for name, page in read.items():
        assert not [each for each in page.loads if re.match(r"https?:|//", each)], name
        assert not re.search(elsewhere, " ".join(page.inline)), name
        assert not re.search(r"import\s*\(?[\"']https?:", " ".join(page.inline)), name
    for style in site.rglob("*.css"):
        assert not re.search(elsewhere, style.read_text(encoding="utf-8")), style.name


def test_the_front_page_is_the_readme(read):
    "index.html and README.html say the same, and lead to every notebook and page"
    front = read["index.html"]
    title = re.match("# (.*)", (ROOT / "README.md").read_text(encoding="utf-8"))[1]
    assert title in front.text and front.links == read["README.html"].links
    assert {f"notebooks/{path.stem}.html" for path in NOTEBOOKS} <= front.links
    assert {"CONTRIBUTING.html", "CHANGELOG.html", "docs/studies.html"} <= front.links


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_keep_their_committed_outputs(notebook, site, read):
    "Title and prose, each printed line, and each picture to the byte"
    content = nbformat.read(notebook, as_version=4)
    page = read[f"notebooks/{notebook.stem}.html"]
    assert re.match("# (.*)", content.cells[0].source)[1].replace("'", "’") in page.text
    outputs = [each for cell in content.cells for each in cell.get("outputs", [])]
    printed = [each.text for each in outputs if each.output_type == "stream"]
    lines = {" ".join(line.split()) for text in printed for line in text.splitlines()}
    assert not [line for line in lines if line not in page.text]
    pictures = [each.data["image/png"] for each in outputs if "image/png" in each.get("data", {})]
    folder = site / "notebooks"
    shown = {(folder / name).resolve().read_bytes() for name in page.loads if "_images" in name}
    assert {base64.b64decode(each) for each in pictures} == shown


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_every_public_function_is_documented(module, read):
    "On the page of its module's level, under its full name"
    number = next(k for k, names in enumerate(pages.levels()) if module.stem in names)
    (page,) = [each for name, each in read.items() if name.startswith(f"docs/api/{number}_")]
    kinds = (ast.FunctionDef, ast.ClassDef)
    body = ast.parse(module.read_text(encoding="utf-8")).body
    public = {each.name for each in body if isinstance(each, kinds) and each.name[0] != "_"}
    assert {f"mpm.{module.stem}.{name}" for name in public} <= page.ids
    assert f"module-mpm.{module.stem}" in page.ids


def test_parameters_and_errors_are_laid_out(read):
    "numpydoc sections become lists, not paragraphs with dashes"
    text = next(page.text for name, page in read.items() if name.startswith("docs/api/2_"))
    section = text[text.index("mpm.windows.") :]
    assert "Parameters :" in section and "Returns :" in section and "Raises :" in section
    assert "-----" not in text


def test_studies_are_listed_with_sources_and_licences(read):
    "Each study file: title, layers, licence, and where its files come from"
    text = read["docs/studies.html"].text.replace("“", '"').replace("”", '"').replace("’", "'")
    for name in studies():
        study = load(name)
        assert f"{name}: {study.title}" in text
        assert re.sub(r"doi:\S+", "", study.licence.strip()) in text
        assert not [layer.name for layer in study.layers if layer.name not in text]
    for entry in fetch.read_registry(ROOT / "data" / "registry.csv", "znpb"):
        assert entry.repository in text and entry.licence in text


def test_each_package_has_a_licence(read):
    "Every direct dependency, with what its metadata state"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = read["docs/studies.html"].text
    after = text[text.index("Software") :]
    for name in (Requirement(line).name for line in project["dependencies"]):
        assert re.search(rf" {re.escape(name)} \S+ (?!none stated)\w", after), name


def test_a_dead_link_stops_the_build(tmp_path):
    "A page that names a missing page is a warning, and a warning an error"
    (tmp_path / "docs").mkdir()
    conf = 'extensions = ["myst_nb"]\nroot_doc = "README"\nhtml_theme = "furo"\n'
    (tmp_path / "docs" / "conf.py").write_text(conf)
    (tmp_path / "README.md").write_text("# Title\n\n[nowhere](missing.md)\n")
    _, result = build(tmp_path, tmp_path / "build")
    assert result.returncode != 0 and "missing.md" in result.stderr
