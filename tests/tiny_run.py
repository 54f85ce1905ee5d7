"""All notebooks on settings so small that only the plumbing is tested."""

import pytest

from mpm import methods, pipeline

QUICK = "weights_of_evidence logistic_regression gradient_boosting mae_features_logistic".split()
QUICK += ["distance_to_deposit", "shuffled_labels"]
TINY = {
    "steps": 40,
    "drawn": 1500,
    "tune_steps": 20,
    "samples": 10,
    "ensemble": 2,
    "draws": 40,
    "top_share": 0.001,
    "folds": 3,
    "region_folds": 0,
    "ways": ["random", "blocks"],
    "processes": 1,
    "left_out": [name for name in methods.NAMES if name not in [*QUICK, "mae"]],
    "pairs": 12,
    "shifts": 10,
    "stressed": ["logistic_regression"],
    "taught_nothing": ["logistic_regression"],
    "deals": 2,
    "blinded": ["mae_features_logistic"],
    "simple": ["picking_rule", "logistic_regression"],
    "sides": [0, 200],
    "stress_folds": 1,
    "repeats": 1,
    "every": 40,
    "tested": 6,
    "permutations": 1,
}


def write_to(folder, patch):
    "Have artefacts and figures written below a folder, as `mpm verify` does"
    patch.setenv("MPM_PROCESSED", str(folder / "processed"))
    patch.setenv("MPM_FIGURES", str(folder / "figures"))


def run_demo(folder):
    "Run every notebook of the demo; artefacts and figures go below a folder"
    with pytest.MonkeyPatch.context() as patch:
        write_to(folder, patch)
        pipeline.run("demo", parameters=TINY)
