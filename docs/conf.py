"""How `make docs` makes the site: from the files where they lie, with nothing run or downloaded."""

import shutil
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import pages  # noqa: E402

from mpm import __version__ as release  # noqa: E402, F401

project, author, copyright = "mpm", "The mpm developers", "2026, The mpm developers"
language = "en-GB"
root_doc = "README"
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "data/comparisons/README.md",
    "data/scores/README.md",
    "docs/**.md",
    "notebooks/*.ipynb",
]
exclude_patterns = [
    ".*",
    "build",
    "data/raw",
    "data/processed",
    "mpm",
    "tests",
    "figures",
    "**.egg-info",
]

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "myst_nb"]
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # they would come from another host, and no output is a widget
myst_heading_anchors = 3
default_role = "literal"
toc_object_entries = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {
    "ignore-module-all": True,  # what a module passes on is on the page of its own
    "exclude-members": "set_fit_request, set_score_request",  # of every scikit-learn estimator
}
napoleon_google_docstring = False
# types as they are written: the words in "DataArray (y, x)" are no references
napoleon_use_param = napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style")]

html_theme = "furo"
html_title = f"mpm {release}"
html_static_path, html_css_files = ["site.css"], ["site.css"]
html_show_sphinx = False
html_copy_source = False


def setup(app) -> None:
    """Fill the pages that are made from the project, and give the site its index."""
    app.connect("source-read", pages.fill)
    app.connect("build-finished", _index)


def _index(app, failure) -> None:
    if failure is None and app.builder.format == "html":
        shutil.copyfile(Path(app.outdir, "README.html"), Path(app.outdir, "index.html"))
