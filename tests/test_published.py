import numpy as np
import pandas as pd
import pytest

from mpm import artefacts, methods, published

OURS = pd.DataFrame(
    [
        ("demo", "random", "mae", "auc", 0.9, 0.8, 0.95),
        ("demo", "blocks", "mae", "auc", 0.7, 0.6, 0.8),
        ("demo", "blocks", "mae", "f1", 0.25, np.nan, np.nan),
        ("znpb", "blocks", "random_forest", "auc", 0.5, 0.4, 0.6),
    ],
    columns=["study", "split", "method", "metric", "value", "low", "high"],
)


def test_published_scores_are_facts_with_a_source():
    "Every row names where it stands, and a method and metric of ours; no row is there twice"
    table = published.scores()
    assert (
        table[["source", "link", "deposit_type", "region", "split"]].map(len).gt(2).all(axis=None)
    )
    assert set(table["method"]) <= set(methods.NAMES)
    assert set(table["metric"]) <= {"auc", "train_auc", "average_precision", "f1", "mcc"}
    assert table["value"].between(0, 1).all() and not table.duplicated(["method", "metric"]).any()
    known = table.set_index(["method", "metric"])["value"]
    assert known["weights_of_evidence_baseline", "auc"] == 0.788
    assert known["mae", "average_precision"] == 0.910 and known["resnet18", "mcc"] == 0.786


def test_ours_stand_beside_the_same_method_and_metric():
    "A column a study and split in the order given, empty where nothing was run"
    table = published.beside(OURS)
    assert table.columns.tolist() == [
        *published.BEFORE,
        "reproduced",
        "demo: random",
        "demo: blocks",
        "znpb: blocks",
    ]
    assert len(table) == len(published.scores())
    mae = table[table["label"] == "MAE"].set_index("metric")
    assert mae.loc["auc", "demo: random"] == "0.900 (0.800 to 0.950)"
    assert mae.loc["auc", "demo: blocks"] == "0.700 (0.600 to 0.800)"
    assert mae.loc["f1", "demo: blocks"] == "0.250" and mae.loc["f1", "demo: random"] == ""
    assert (table["znpb: blocks"] == "").all()  # nobody published a random forest


def test_the_reproduced_column_is_ours_on_the_published_data_under_the_same_split():
    "Of the training cells, too; empty without that study, and under another split"
    assert (published.beside(OURS)["reproduced"] == "").all()
    rows = [
        ("lawley2022", "latitude", "gradient_boosting", "auc", 0.96, 0.95, 0.97),
        ("lawley2022", "latitude", "gradient_boosting", "train_auc", 0.99, np.nan, np.nan),
        ("lawley2022", "blocks", "weights_of_evidence_updated", "auc", 0.8, 0.7, 0.9),
    ]
    table = published.beside(pd.concat([OURS, pd.DataFrame(rows, columns=OURS.columns)]))
    found = table.set_index(["label", "metric"])["reproduced"]
    assert found["gradient boosting, preferred", "auc"] == "0.960 (0.950 to 0.970)"
    assert found["gradient boosting, preferred", "train_auc"] == "0.990"
    assert (found != "").sum() == 2


def test_two_seeds_are_not_one_score():
    with pytest.raises(ValueError, match="demo, random, mae, auc is there twice"):
        published.beside(pd.concat([OURS, OURS]))


def test_a_row_without_a_source_is_refused(tmp_path, monkeypatch):
    "The message names the file, the row and the column"
    monkeypatch.setenv("MPM_HOME", str(tmp_path))
    row = dict.fromkeys(published.COLUMNS, 1) | {"colour": 1}
    del row["source"]
    artefacts.write_json(tmp_path / "data" / "published_scores.json", [row])
    with pytest.raises(
        ValueError, match="row 0 of .*published_scores.json: colour, source missing"
    ):
        published.scores()
