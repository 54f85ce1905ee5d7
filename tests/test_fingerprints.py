import numpy as np
import pandas as pd
from helpers import toy_cube

from mpm import fingerprints


def test_the_hash_follows_imports(tmp_path, monkeypatch):
    "A change matters if the module is imported, however far away, and only then"
    sources = {
        "a": "from mpm import b\n",
        "b": "def f():\n    from mpm.c import g\n",
        "c": "",
        "d": "",
    }
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.setattr(fingerprints, "__file__", str(tmp_path / "fingerprints.py"))
    first = fingerprints.code_hash("a")
    (tmp_path / "d.py").write_text("changed = 1\n")
    assert fingerprints.code_hash("a") == first != fingerprints.code_hash("a", "d")
    (tmp_path / "c.py").write_text("changed = 1\n")
    assert fingerprints.code_hash("a") != first


def test_data_are_told_apart_by_evidence_labels_and_layers():
    "Also by places; attributes that nothing is computed from do not matter"
    cube = toy_cube(1)
    first = fingerprints.data_hash({"one": cube}, "MVT")
    assert fingerprints.data_hash({"one": cube.assign_attrs(title="new")}, "MVT") == first
    for name in ("evidence", "valid", "MVT", "MVT_deposit"):
        changed = cube.copy(deep=True)
        changed[name].values[..., 0, 0] = 1 - changed[name].values[..., 0, 0]
        assert fingerprints.data_hash({"one": changed}, "MVT") != first, name
    for name in ("x", "y"):
        moved = cube.assign_coords({name: cube[name] + 1})
        assert fingerprints.data_hash({"one": moved}, "MVT") != first
    renamed = cube.assign_coords(layer=["magnetics", "gradient"])
    assert fingerprints.data_hash({"one": renamed}, "MVT") != first


def test_facts_are_read_without_the_table(tmp_path):
    "Nothing where there is no table, none of ours or half of one"
    rows = pd.DataFrame({"value": [1.0]})
    rows.attrs = fingerprints.plain({"seed": np.int64(7), "cells": (1, 2)})
    rows.to_parquet(tmp_path / "a.parquet")
    assert fingerprints.facts(tmp_path / "a.parquet") == {"seed": 7, "cells": [1, 2]}
    pd.DataFrame({"value": [1.0]}).to_parquet(tmp_path / "b.parquet")
    (tmp_path / "c.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:40])
    for name in ("b", "c", "d"):
        assert fingerprints.facts(tmp_path / f"{name}.parquet") == {}
