import numpy as np
import pandas as pd

from mpm import score_rows
from mpm.metrics import Interval
from mpm.score_store import add_scores, append_scores, read_scores

KEYS = {"study": "toy", "target": "MVT", "seed": 7}


def test_all_that_is_found_is_a_row_of_the_table(tmp_path):
    "Bands, differences, pairs and shuffles beside the scores of the same runs, which stay"
    place = tmp_path / "scores.parquet"
    score = {"split": "blocks", "method": "mae", "fold": "mean", "metric": "auc"}
    own = pd.DataFrame([score | {"value": 0.8, "low": 0.7, "high": 0.9}])
    append_scores(place, own, KEYS)
    band = {"split": "blocks", "method": "mae", "metric": "auc"}
    bands = pd.DataFrame([band | {"low": 0.4, "middle": 0.5, "high": 0.6}])
    apart = band | {"other": "resnet18", "difference": 0.1, "low": 0.0, "high": 0.2}
    verdicts = pd.DataFrame(
        [("blocks", "mae", 30, 0.51, 0.45, 0.57, 0.1, True)],
        columns=["split", "method", "deals", "mean", "low", "high", "sd", "holds"],
    ).set_index(["split", "method"])
    rows = [
        score_rows.of_bands(bands),
        score_rows.of_differences(pd.DataFrame([apart])),
        score_rows.of_pairs({"mae": Interval(0.75, 0.6, 0.9)}),
        score_rows.of_shuffles(verdicts),
    ]
    for _ in range(2):  # the second time in place of the first
        for table in rows:
            add_scores(place, table, KEYS)
    table = read_scores(place)
    found = table.set_index(["split", "method", "metric"])[["value", "low", "high"]]
    assert len(table) == 7 and (table["fold"] == "mean").all()
    expected = {
        ("blocks", "mae", "auc"): [0.8, 0.7, 0.9],
        ("blocks", "mae", "auc_on_shifted_labels"): [0.5, 0.4, 0.6],
        ("blocks", "mae", "auc_less_resnet18"): [0.1, 0.0, 0.2],
        ("leave_pair_out", "mae", "auc"): [0.75, 0.6, 0.9],
        ("blocks", "shuffled:mae", "auc"): [0.51, 0.45, 0.57],
        ("blocks", "shuffled:mae", "auc_sd"): [0.1, np.nan, np.nan],
        ("blocks", "shuffled:mae", "auc_deals"): [30, np.nan, np.nan],
    }
    for key, values in expected.items():
        np.testing.assert_array_equal(found.loc[key], values)
