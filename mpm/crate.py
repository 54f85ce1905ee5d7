"""Describe a run as an RO-Crate: what was made from what, by which software, under which licence.

Source: RO-Crate 1.1, https://w3id.org/ro/crate/1.1.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import yaml

from mpm import artefacts, fetch
from mpm.layers import Layer
from mpm.record import RunRecord
from mpm.study import Deposits, Study

NAME = "ro-crate-metadata.json"
_CONTEXT = [
    "https://w3id.org/ro/crate/1.1/context",
    {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"},
]
_SPDX = {
    "CC0-1.0": r"CC0.*|public domain \(CC0\)",
    "CC-BY-4.0": "CC BY 4.0",
    "CC-BY-SA-4.0": "CC BY-SA 4.0",
    "GPL-2.0-only": "GPL-2.0",
    "GPL-3.0-only": "GPL-3.0",
    "MIT": "MIT",
    "BSD-3-Clause": "BSD-3-Clause",
}
_KINDS = {
    ".tif": "image/tiff",
    ".parquet": "application/vnd.apache.parquet",
    ".json": "application/json",
    ".ipynb": "application/x-ipynb+json",
    ".png": "image/png",
}


def write(setup: Study, made: RunRecord) -> Path:
    """Write `ro-crate-metadata.json` into a study's folder, which becomes a crate.

    Parameters
    ----------
    setup : Study
    made : RunRecord
        Of the run. Files that are no longer there are left out.

    Returns
    -------
    Path
    """
    place = setup.processed / NAME
    artefacts.write_json(place, {"@context": _CONTEXT, "@graph": _graph(setup, made)})
    return place


def licences(setup: Study, files: Iterable[str]) -> dict[str, str]:
    """Return the licence of each input file.

    What a layer or the deposits say comes first, then `data/registry.csv`, then the study.

    Parameters
    ----------
    setup : Study
    files : iterable of str
        Paths relative to the study's data folder, as `fetch.input_checksums` gives them.
    """
    items: list[Layer | Deposits] = [*setup.layers, setup.deposits]
    stated = {
        inside(setup.file(item, region), setup): item.licence
        for region in setup.regions
        for item in items
    }
    registered = {entry.name: entry.licence for entry in _entries(setup)}
    found = {}
    for name in files:
        part = Path(name).suffix.lower() in artefacts.SHAPEFILE_PARTS
        whole = Path(name).with_suffix(".shp").as_posix() if part else name
        licence = stated.get(whole) or registered.get(name) or setup.licence
        found[name] = licence.strip() or "none stated"
    return found


def _entries(setup: Study) -> list[fetch.Entry]:
    registry = artefacts.home() / "data" / "registry.csv"
    return fetch.read_registry(registry, setup.name) if setup.fetch == "registry" else []


def inside(path: Path, setup: Study) -> str:
    """Return an input file's path relative to the study's data folder, if it lies there."""
    below = path.is_relative_to(setup.raw)
    return (path.relative_to(setup.raw) if below else path).as_posix()


# The crate's entities, each a dict with "@id" and "@type"


def _graph(setup: Study, made: RunRecord) -> list[dict]:
    read = {name: _read_by(entry, made) for name, entry in made.notebooks.items()}
    pairs = [*made.inputs.items(), *(pair for each in read.values() for pair in each.items())]
    stated = licences(setup, [name for name, _ in pairs])
    inputs = _inputs(setup, made, pairs, stated)
    files = {name: _file(setup, name) for name in _names(setup, made)}
    software = _software(made)
    runs = [
        _action(name, made, [inputs[pair] for pair in read[name].items()], files, software[0])
        for name in made.notebooks
    ]
    authors = _authors()
    parts = [each for each in [*files.values(), *inputs.values()] if _is_data(each)]
    graph = [_descriptor(), _root(setup, made, authors, parts, runs), *authors]
    graph += map(_licence, [_own_licence(setup), *stated.values()])
    graph += [*inputs.values(), *files.values(), *_figures(made), *software, *runs]
    return list({each["@id"]: each for each in graph}.values())


def _descriptor() -> dict:
    return {
        "@id": NAME,
        "@type": "CreativeWork",
        "about": {"@id": "./"},
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
    }


def _root(
    setup: Study, made: RunRecord, authors: list[dict], parts: list[dict], runs: list[dict]
) -> dict:
    """Describe the run as a whole."""
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"mpm run of study {setup.name}: {setup.title or setup.name}",
        "description": setup.description or f"Maps and scores of study {setup.name}",
        "datePublished": max((e["started"] for e in made.notebooks.values()), default="")[:10],
        "license": _ref(_licence(_own_licence(setup))),
        "hasPart": [_ref(each) for each in parts],
        "mentions": [_ref(each) for each in runs],
        "identifier": made.study_hash,
    }
    if authors:
        root["author"] = _one_or_all(authors)
    if organisations := [each for each in authors if each["@type"] == "Organization"]:
        root["publisher"] = _ref(organisations[0])
    return root | ({"citation": setup.citation} if setup.citation else {})


def _own_licence(setup: Study) -> str:
    return setup.licence.strip() or "none stated"


def _names(setup: Study, made: RunRecord) -> list[str]:
    names = {"run.json"}.union(*map(_results, made.notebooks.values()))
    return [name for name in sorted(names) if (setup.processed / name).exists()]


def _results(entry: dict) -> list[str]:
    """Name the files that a notebook left in the study's folder."""
    return [*entry.get("artefacts", []), *([entry["executed"]] if "executed" in entry else [])]


def _file(setup: Study, name: str) -> dict:
    path = setup.processed / name
    if path.is_dir():
        return {"@id": f"{quote(name)}/", "@type": "Dataset", "name": f"Zarr store {name}"}
    facts = {"@id": quote(name), "@type": "File", "name": name}
    facts["contentSize"] = str(path.stat().st_size)
    kind = _KINDS.get(path.suffix, "application/octet-stream")
    return facts | {"encodingFormat": kind, "sha256": artefacts.sha256(path)}


def _read_by(entry: dict, made: RunRecord) -> dict[str, str]:
    """Return the inputs of one notebook's own run, with their SHA-256 at that time."""
    return entry.get("inputs", made.inputs)


def _inputs(
    setup: Study, made: RunRecord, pairs: Iterable[tuple[str, str]], stated: dict[str, str]
) -> dict[tuple[str, str], dict]:
    """Describe input files, by name and SHA-256: at their public address if it is that file.

    A file that was replaced since a notebook read it is another entity than that of now.
    """
    urls = {(entry.name, entry.sha256): entry.url for entry in _entries(setup)}
    found = {}
    for name, checksum in dict.fromkeys(pairs):
        url, now = urls.get((name, checksum)), made.inputs.get(name) == checksum
        own = f"#input/{_slug(name)}" if now else f"#input/{_slug(name)}-{checksum[:16]}"
        facts: dict = {"@id": url or own, "@type": "File" if url else "CreativeWork"}
        facts |= {"name": name, "sha256": checksum, "license": _ref(_licence(stated[name]))}
        if not now:
            facts["description"] = "As it was when a notebook read it; it is no longer there"
        if Path(name).suffix in _KINDS:
            facts["encodingFormat"] = _KINDS[Path(name).suffix]
        found[name, checksum] = facts
    return found


def _figures(made: RunRecord) -> list[dict]:
    return [
        {
            "@id": f"#figure/{each['figure']}",
            "@type": "ImageObject",
            "name": each["figure"],
            "encodingFormat": "image/png",
            "sha256": each["sha256"],
        }
        for entry in made.notebooks.values()
        for each in entry.get("figures", [])
    ]


def _software(made: RunRecord) -> list[dict]:
    """Describe the compendium, Python and each direct dependency."""
    own = {
        "@id": "#software/mpm",
        "@type": "SoftwareSourceCode",
        "name": "mpm",
        "version": made.commit or "not under version control",
        "license": _ref(_licence("BSD-3-Clause")),
        "softwareRequirements": [{"@id": f"#software/{name}"} for name in made.packages],
        "runtimePlatform": f"Python {made.python}, {made.platform}, {made.threads} threads",
    }
    packages = [
        {
            "@id": f"#software/{name}",
            "@type": "SoftwareApplication",
            "name": name,
            "version": version,
            "url": f"https://pypi.org/project/{name}/{version}/",
        }
        for name, version in made.packages.items()
    ]
    return [own, *packages, _licence("BSD-3-Clause")]


def _action(name: str, made: RunRecord, inputs: list[dict], files: dict, software: dict) -> dict:
    """Describe the run of one notebook: what it read, what it made, and how it ended."""
    entry = made.notebooks[name]
    results = [files[each] for each in _results(entry) if each in files]
    figures = [{"@id": f"#figure/{each['figure']}"} for each in entry.get("figures", [])]
    done = entry["status"] == "done"
    return {
        "@id": f"#run/{name}",
        "@type": "CreateAction",
        "name": f"Notebook {name}",
        "description": ", ".join(f"{key} = {value}" for key, value in entry["parameters"].items()),
        "instrument": _ref(software),
        "object": [_ref(each) for each in inputs],
        "result": [_ref(each) for each in results] + figures,
        "startTime": entry["started"],
        "actionStatus": {
            "@id": f"http://schema.org/{'Completed' if done else 'Failed'}ActionStatus"
        },
    }


def _authors() -> list[dict]:
    """Return the authors that CITATION.cff names; none without one."""
    path = artefacts.home() / "CITATION.cff"
    cited = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    found = []
    for author in cited.get("authors", []):
        person = "family-names" in author
        parts = (author.get("given-names"), author.get("family-names"), author.get("name"))
        name = " ".join(filter(None, parts))
        kind = "Person" if person else "Organization"
        found.append({"@id": f"#author/{_slug(name)}", "@type": kind, "name": name})
    return found


def _licence(text: str) -> dict:
    for spdx, pattern in _SPDX.items():
        if re.fullmatch(pattern, text.strip()):
            place = f"https://spdx.org/licenses/{spdx}"
            return {"@id": place, "@type": "CreativeWork", "name": spdx}
    return {"@id": f"#licence/{_slug(text)}", "@type": "CreativeWork", "name": text.strip()}


def _slug(text: str) -> str:
    """Return a text as part of an identifier; where it had to be changed, a hash tells it apart."""
    plain = re.sub(r"[^A-Za-z0-9._/-]+", "-", text.strip())[:60].strip("-")
    if plain == text.strip():
        return plain
    return f"{plain}-{hashlib.sha256(text.strip().encode()).hexdigest()[:8]}".lstrip("-")


def _ref(entity: dict) -> dict:
    return {"@id": entity["@id"]}


def _one_or_all(entities: list[dict]) -> dict | list[dict]:
    return _ref(entities[0]) if len(entities) == 1 else [_ref(each) for each in entities]


def _is_data(entity: dict) -> bool:
    return entity["@type"] in ("File", "Dataset")
