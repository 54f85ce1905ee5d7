"""What is installed: pinned, asked for, and without the holes that are known to us."""

import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def lock():
    lines = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
    assert not [line for line in lines if "://" in line or line.lstrip().startswith("-")]
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_every_package_of_the_lock_is_pinned_and_named_only():
    "One version each, no address, no path, no option; at most one pin where a marker holds"
    pins = lock()
    assert len(pins) > 100
    for pin in pins:
        (exact,) = pin.specifier
        assert exact.operator == "==" and "*" not in exact.version and pin.url is None
    seen = [(canonicalize_name(pin.name), str(pin.marker)) for pin in pins]
    assert len(seen) == len(set(seen))


def test_the_lock_holds_what_is_asked_for_and_what_that_needs():
    "Walking the requirements of installed packages from pyproject.toml reaches every name"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    asked = project["project"]["dependencies"] + project["build-system"]["requires"]
    asked += sum(project["project"]["optional-dependencies"].values(), [])
    waiting, reached = [Requirement(line) for line in asked], set()
    while waiting:
        needed = waiting.pop()
        name = canonicalize_name(needed.name)
        fresh = {(name, ""), *((name, extra) for extra in needed.extras)} - reached
        reached |= fresh
        try:
            lines = requires(needed.name) or [] if fresh else []
        except PackageNotFoundError:  # of another platform
            continue
        for each in map(Requirement, lines):
            extras = [""] + list(needed.extras)
            if each.marker is None or any(each.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(each)
    names = {name for name, _ in reached}
    pinned = {canonicalize_name(pin.name): pin for pin in lock()}
    here = {name for name, pin in pinned.items() if not pin.marker or pin.marker.evaluate()}
    assert sorted(here - names) == []
    assert sorted(names - pinned.keys() - OWN) == []


OWN = {"mpm", "pip", "setuptools"}


# Versions with published holes that let a crafted file, page or name run code or reach other
# places; the first version without it. Source: the numbers named, in the CVE list.
HOLES = {
    "certifi": ("2024.7.4", "CVE-2024-39689, a root that is no longer trusted"),
    "dask": ("2021.10.0", "CVE-2021-42343, workers open to the network"),
    "jinja2": ("3.1.6", "CVE-2025-27516, a way out of the sandbox"),
    "jupyter-core": ("5.8.1", "CVE-2025-30167, other users' configuration on Windows"),
    "nbconvert": ("6.5.1", "CVE-2021-32862, scripts in notebooks"),
    "pillow": ("10.3.0", "CVE-2024-28219, an overflow"),
    "pyarrow": ("14.0.1", "CVE-2023-47248, tables that run code"),
    "pyyaml": ("5.4", "CVE-2020-14343, full_load runs code"),
    "requests": ("2.32.4", "CVE-2024-47081, passwords sent elsewhere"),
    "setuptools": ("78.1.1", "CVE-2025-47273, a name climbs out of its folder"),
    "torch": ("2.10.0", "CVE-2026-24747, checkpoints that run code"),
    "tornado": ("6.5.0", "CVE-2025-47287, a flood of messages"),
    "tqdm": ("4.66.3", "CVE-2024-34062, options that are run"),
    "urllib3": ("2.5.0", "CVE-2025-50181, redirects that were switched off"),
}


def test_no_version_with_a_published_hole_is_locked():
    "Of packages that read what others wrote; where the lock has none of a name, nothing is said"
    for pin in lock():
        (exact,) = pin.specifier
        safe, why = HOLES.get(canonicalize_name(pin.name), ("0", ""))
        assert Version(exact.version) >= Version(safe), f"{pin.name} {exact.version}: {why}"
