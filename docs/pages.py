"""The parts of the site that are written from the project itself: contents, modules, studies."""

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from mpm import crate, fetch
from mpm.layers import Layer
from mpm.study import Study, load, studies

ROOT = Path(__file__).resolve().parents[1]
CONTENTS = """

```{toctree}
:hidden:
:caption: Notebooks
:glob:

notebooks/*
```

```{toctree}
:hidden:
:caption: Project

docs/running
docs/studies
data/comparisons/README
data/scores/README
CONTRIBUTING
CHANGELOG
```

```{toctree}
:hidden:
:caption: Modules
:glob:

docs/api/*
```
"""


def fill(app, name: str, source: list[str]) -> None:
    """Write into a page, before it is read, what it is to show of the project.

    The front page gets the table of contents, which a code host would print as it stands. In the
    pages of this folder the comments `studies`, `software` and `modules LEVEL` are replaced.
    """
    if name == "README":
        source[0] += CONTENTS
    elif name.startswith("docs/"):
        source[0] = re.sub(r"<!-- (.+?) -->", lambda found: _part(*found[1].split()), source[0])


def _part(name: str, *which: str) -> str:
    return {"studies": _studies, "software": _software, "modules": _modules}[name](*which)


# Modules


def levels() -> list[list[str]]:
    """Return the modules by level, as tests/test_project.py has them."""
    text = (ROOT / "tests" / "test_project.py").read_text(encoding="utf-8")
    assigned = (node for node in ast.parse(text).body if isinstance(node, ast.Assign))
    found = next(node.value for node in assigned if ast.unparse(node.targets[0]) == "LEVELS")
    return [sorted(names) for names in ast.literal_eval(found)]


def _modules(level: str) -> str:
    """Return a table of a level's modules, then the documentation of each."""
    names = levels()[int(level)]
    rows = [(f"{{py:mod}}`mpm.{name}`", _summary(name)) for name in names]
    body = "## mpm.{0}\n\n```{{eval-rst}}\n.. automodule:: mpm.{0}\n   :members:\n```"
    return "\n\n".join([_table(["module", "what it does"], rows), *map(body.format, names)])


def _summary(name: str) -> str:
    text = (ROOT / "mpm" / f"{name}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(text)).split("\n\n")[0]


# Studies and licences


def _studies() -> str:
    return "\n\n".join(_study(load(name)) for name in studies())


def _study(study: Study) -> str:
    """Return what one study file says: data, targets, licences, sources."""
    layers = [_layer(study, layer) for layer in study.layers]
    regions = [
        (name, region.crs, f"{region.resolution / 1000:g} km", "{} x {}".format(*region.shape))
        for name, region in study.regions.items()
    ]
    targets = [
        (name, ", ".join(target.types or ("all",)), f"{target.radius / 1000:g} km")
        for name, target in study.targets.items()
    ]
    parts = [
        f"## {study.name}: {study.title}",
        _linked(study.description),
        f"**Licence.** {_linked(study.licence)}",
        f"**Citation.** {_linked(study.citation)}" if study.citation else "",
        f"**Deposits.** {_linked(study.deposits.source)}" if study.deposits.source else "",
        _table(["region", "CRS", "cell", "rows x columns"], regions),
        _table(["target", "deposit types", "positive within"], targets),
        _table(["layer", "group", "units", "source", "licence"], layers),
        _files(study),
    ]
    return "\n\n".join(part for part in parts if part)


def _layer(study: Study, layer: Layer) -> tuple[str, ...]:
    name = crate.inside(study.file(layer, next(iter(study.regions))), study)
    licence = crate.licences(study, [name])[name]
    licence = "as the study" if licence == study.licence.strip() else licence
    return f"`{layer.name}`", layer.group, layer.units, _linked(layer.source), licence


def _files(study: Study) -> str:
    """Return a table of where a study's files are fetched from; nothing if they are not."""
    if study.fetch != "registry":
        return ""
    registry = fetch.read_registry(ROOT / "data" / "registry.csv", study.name)
    count = Counter((each.repository, each.commit[:8], each.licence) for each in registry)
    rows = [
        (f"[{repository}](https://github.com/{repository})", commit, str(files), licence)
        for (repository, commit, licence), files in count.items()
    ]
    return _table(["fetched from", "commit", "files", "licence stated there"], rows)


def _software() -> str:
    """Return a table of the packages that mpm needs, with the licences that they state."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = sorted(Requirement(line).name for line in project["dependencies"])
    rows = [(name, metadata.version(name), _licence_of(metadata.metadata(name))) for name in names]
    return _table(["package", "version here", "licence"], rows)


def _licence_of(facts: metadata.PackageMetadata) -> str:
    """Return a package's licence: SPDX expression, else classifiers, else the text's first line."""
    classes = [each for each in facts.get_all("Classifier") or [] if each.startswith("License ::")]
    stated = [each.split(" :: ")[-1] for each in classes if each.count("::") > 1]
    first = (facts.get("License") or "").strip().splitlines()[:1]
    return facts.get("License-Expression") or ", ".join(stated or first) or "none stated"


# Markdown


def _table(head: list[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = [[" ".join(str(cell).split()).replace("|", "\\|") for cell in row] for row in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _linked(text: str) -> str:
    """Return a text whose DOIs are links."""
    return re.sub(r"doi:(10\.\d+/[^\s,;)]*[^\s,;).])", r"[doi:\1](https://doi.org/\1)", text)
