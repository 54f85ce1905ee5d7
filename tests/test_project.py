"""Files of the project that must agree: environments, lock, licence, citation, import order."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator, FormatChecker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NEEDED = [Requirement(line) for line in PROJECT["dependencies"]]
EXTRAS = [Requirement(line) for each in PROJECT["optional-dependencies"].values() for line in each]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
CONDA_NAMES = {
    "torch": "pytorch",
    "matplotlib": "matplotlib-base",
    "h3": "h3-py",
    "types-PyYAML": "types-pyyaml",
}
CPU_ONLY = {"pytorch", "torchvision"}

# A module imports from its own level or from those above it in this list, never from below.
LEVELS = [
    {"artefacts", "bars", "method_names", "threads"},
    {
        "study",
        "study_errors",
        "layers",
        "fetch",
        "demo",
        "demo_world",
        "rasters",
        "netcdf",
        "places",
        "resample",
        "vectors",
        "vector_files",
        "geography",
        "planar",
        "points",
        "gridding",
        "deposits",
        "hexagons",
        "lawley2022",
        "lawley_facts",
        "lawley_sample",
        "lawley_table",
        "geophysics",
        "conversion",
        "prospectmap",
        "derive",
        "kinds",
        "align",
        "datacube",
    },
    {
        "labels",
        "scaling",
        "windows",
        "window_statistics",
        "leaks",
        "remembered",
        "dealing",
        "districts",
        "splits",
        "folds",
        "correlation_range",
        "masking",
        "encoder",
        "convnet",
        "mae",
        "transfer",
        "adapted",
        "checkpoints",
    },
    {
        "memory",
        "workers",
        "devices",
        "batch_parts",
        "training",
        "pretraining",
        "classifier",
        "fine_tuning",
        "tuning",
        "pu_selection",
        "weights_of_evidence",
        "baselines",
        "tasks",
        "network_methods",
        "methods",
        "prediction",
        "ranking",
        "bootstrap",
        "metrics",
        "curves",
        "score_store",
        "score_rows",
        "score_runs",
        "nulls",
        "leave_pair_out",
        "map_styles",
        "map_files",
        "mapping",
        "tiled_maps",
        "tiled_attribution",
        "continent",
        "targets",
        "comparison",
        "comparison_table",
        "variants",
        "fingerprints",
        "trials",
        "trial_folds",
        "trial_work",
        "perturb",
        "kept_networks",
        "stress_table",
        "stress",
        "shuffles",
        "as_released",
        "published",
        "probes",
        "explain",
        "explained_cells",
        "explanation_kinds",
        "shapley",
        "faithfulness",
        "sanity",
        "reconstruction",
        "scenes",
        "features",
        "evaluation",
    },
    {
        "plots",
        "map_plots",
        "score_plots",
        "data_plots",
        "model_plots",
        "feature_plots",
        "split_plots",
        "stress_plots",
        "kernel",
        "record",
        "pipeline",
        "overview_plots",
        "steps",
        "freshness",
        "crate",
        "overview",
        "refresh",
        "study_scores",
        "kept_ladder",
        "study_explanations",
        "results",
        "status",
        "verify",
        "batch",
        "new_study",
        "tutorial",
        "deposit_numbers",
        "doctor",
        "target_plots",
        "web_layers",
        "web_figure",
        "web_page",
        "web_map",
        "explain_plots",
        "faithfulness_plots",
        "cell_setting",
        "cell_facts",
        "cell_page",
    },
    {"commands", "__main__"},
]
MODULES = sorted(path.stem for path in (ROOT / "mpm").glob("*.py") if path.stem != "__init__")


def conda_dependencies():
    """Return environment.yml's packages as name: (bounds, build), and its pip section."""
    content = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    packages, pip = {}, []
    for entry in content["dependencies"]:
        if isinstance(entry, dict):
            pip += entry["pip"]
        elif bracket := re.fullmatch(r'([\w-]+)\[version="([^"]*)",build="([^"]*)"\]', entry):
            packages[bracket[1]] = (bracket[2], bracket[3])
        else:
            name, bounds = re.fullmatch(r"([\w-]+)(.*)", entry).groups()
            packages[name] = (bounds, "")
    return packages, pip


def imported(path):
    """Return every module that a file imports, wherever in the file, by full name."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@cache
def own_imports():
    """Return the modules of mpm that each module of mpm imports."""
    wanted = {}
    for module in MODULES:
        names = {
            name.split(".")[1]
            for name in imported(ROOT / "mpm" / f"{module}.py")
            if name.startswith("mpm.")
        }
        wanted[module] = names & set(MODULES)
    return wanted


def test_conda_and_pip_ask_for_the_same_packages():
    "environment.yml has the names and bounds of pyproject.toml, and nothing else"
    packages, _ = conda_dependencies()
    expected = {CONDA_NAMES.get(each.name, each.name): each.specifier for each in NEEDED + EXTRAS}
    given = {
        name: SpecifierSet(bounds)
        for name, (bounds, _) in packages.items()
        if name not in ("python", "pip")
    }
    assert given == expected


def test_conda_takes_torch_without_cuda():
    "torch and torchvision are CPU builds of one channel, and pip brings nothing but the package"
    packages, pip = conda_dependencies()
    builds = {name: build for name, (_, build) in packages.items() if build}
    assert builds == dict.fromkeys(CPU_ONLY, "cpu*")
    assert pip == ["-e ."]


def test_conda_names_a_python_that_the_package_supports():
    "Binder needs an exact minor version"
    bounds = conda_dependencies()[0]["python"][0]
    version = re.fullmatch(r"=(3\.\d+)", bounds)[1]
    assert SpecifierSet(PROJECT["requires-python"]).contains(version)


@pytest.mark.parametrize("needed", NEEDED + EXTRAS, ids=lambda needed: needed.name)
def test_the_lock_pins_every_dependency_within_bounds(needed):
    "One exact version on each platform and Python, inside the bounds of pyproject.toml"
    pins = [Requirement(line) for line in LOCK if line and not line.startswith("#")]
    found = [pin for pin in pins if canonicalize_name(pin.name) == canonicalize_name(needed.name)]
    assert found, f"requirements.lock lacks {needed.name}"
    for pin in found:
        (exact,) = pin.specifier
        assert exact.operator == "==" and needed.specifier.contains(exact.version)


def test_licence_and_citation_agree_with_the_package():
    "Title, authors, version and licence are the same wherever they are stated"
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["title"]
    assert str(citation["version"]) == PROJECT["version"]
    assert citation["license"] == PROJECT["license"] == "BSD-3-Clause"
    assert citation["authors"] == PROJECT["authors"] == [{"name": "The mpm developers"}]
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert licence.startswith("BSD 3-Clause License") and "2026, The mpm developers" in licence


def test_the_citation_is_valid():
    "By the public schema of the Citation File Format, which refuses what it does not know"
    schema = json.loads((ROOT / "tests" / "data" / "cff-1.2.0-schema.json").read_text())
    refused = Draft7Validator(schema, format_checker=FormatChecker()).iter_errors
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert not [error.message for error in refused(citation)]
    for change in [{"licence": "MIT"}, {"type": "book"}, {"authors": []}, {"license": "free"}]:
        assert list(refused(citation | change)), change


def test_the_package_states_its_version_once():
    "mpm.__version__ is that of pyproject.toml, and the change log has it"
    import mpm

    assert mpm.__version__ == PROJECT["version"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_module_has_a_level():
    "A new module is given its place in LEVELS"
    assert set(MODULES) <= set().union(*LEVELS)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module):
    "No module imports from a level that builds on it"
    level = {name: number for number, names in enumerate(LEVELS) for name in names}
    upward = {name for name in own_imports()[module] if level.get(name, 0) > level.get(module, 0)}
    assert not upward, f"mpm/{module}.py imports {', '.join(sorted(upward))}, which builds on it"


def test_imports_have_no_cycles():
    "Taking away modules whose imports are all taken leaves none"
    wanted = dict(own_imports())
    while free := [module for module, names in wanted.items() if not names & set(wanted)]:
        for module in free:
            del wanted[module]
    assert not wanted


def test_timm_is_touched_in_one_module():
    "A release of timm that moves something concerns one file"
    users = [
        module
        for module in MODULES
        if any(name.split(".")[0] == "timm" for name in imported(ROOT / "mpm" / f"{module}.py"))
    ]
    assert users == ["encoder"]


def test_importing_mpm_is_light():
    "Neither torch nor anything else heavy comes with `import mpm`"
    code = "import mpm, sys; print({'torch', 'numpy', 'xarray', 'timm', 'shap'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
