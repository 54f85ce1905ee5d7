import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny

from mpm.training import PretrainSettings

FOLDER = Path(__file__).parent / "benchmarks"


@pytest.fixture
def bench(monkeypatch):
    "Import a benchmark by its name"
    monkeypatch.syspath_prepend(FOLDER)
    yield __import__
    for path in FOLDER.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_operations_of_a_step_by_hand(bench):
    """Windows of 9 x 9 cells, two layers; of nine patches two are seen; a product counts double

    The first layer of the encoder and that of missing shares need no gradient of what they are
    given, so they cost two products; all others three. Attention is two products forward and four
    backward, for 3 tokens in the encoder and 10 in the decoder.
    """
    encoder = 2 * (2 * 18 * 16 + 2 * 2 * 16) + 3 * 3 * (16 * 48 + 16 * 16 + 2 * 16 * 64)
    encoder += 6 * 3 * 3 * 16
    decoder = 3 * 3 * 16 * 8 + 3 * 10 * (8 * 24 + 8 * 8 + 2 * 8 * 32) + 6 * 10 * 10 * 8
    decoder += 3 * 7 * 8 * 18
    assert bench("bench_training").operations(tiny()) == 2 * (encoder + decoder)


def test_every_step_but_two_is_timed_beside_a_product(bench):
    "The product runs once before each"
    config, products = tiny(), []
    windows = bench("ratios").random_windows((6, 7), 2, 9)
    settings = PretrainSettings(steps=5, batch=4, micro=2)
    given = config, settings, torch.device("cpu"), windows, lambda: products.append(1)
    steps, plain = bench("bench_training").time_steps(*given)
    assert len(products) == 5 and len(steps) == len(plain) == 3
    assert min(steps) > max(plain) > 0


def test_windows_read_one_by_one_are_those_listed(bench, capsys):
    "The benchmark compares them itself, and says how they stand"
    bench("bench_windows").bench_listing((40, 50), 2, 5)
    assert "list the windows of 40 x 50 cells" in capsys.readouterr().out


def test_windows_read_one_by_one_have_no_gap(bench, tmp_path):
    "In 4 x 6 cells with a gap in the second column, windows of 3 x 3 start in the third and later"
    evidence = np.ones((2, 4, 6), "float32")
    evidence[1, 0, 1] = np.nan
    module = bench("bench_windows")
    place = module.write(evidence, tmp_path / "tile.tif")
    assert module.read_one_by_one(place, 3, 1) == [(0, 2), (0, 3)]


def test_windows_gathered_are_those_of_a_loop(bench, capsys):
    module = bench("bench_windows")
    module.bench_gathering(module.random_windows((8, 9), 2, 5), count=20)
    assert "gather 20 windows" in capsys.readouterr().out


def test_prediction_and_negatives_run(bench, capsys):
    module = bench("bench_prediction")
    module.bench_dropout("tiny", tiny(), 16)
    module.bench_negatives("backbone", (12, 10), 5)
    output = capsys.readouterr().out
    assert "tiny: 16 windows predicted" in output and "120 x 5, 2 layers" in output


def test_explanations_of_both_ways_are_the_same(bench, capsys):
    "The benchmark compares attributions and likelihoods itself"
    module = bench("bench_explanation")
    windows = module.random_windows((20, 20), 2, 9)
    module.bench_ways(tiny(), windows, 9, repeats=1)
    assert module.bench_memory(tiny(), windows, 9) > 0
    output = capsys.readouterr().out
    same, likely = (line for line in output.splitlines() if "differ" in line)
    assert same.endswith("0.0001: met") and likely.endswith("5: met")


def test_explanations_are_benched_on_real_windows(bench, monkeypatch):
    "Of all 14 layers, or random ones where the files are not"
    module = bench("bench_explanation")

    def none(study):
        raise OSError("no network")

    with monkeypatch.context() as patch:
        patch.setattr(module.fetch, "fetch", none)
        assert len(module.study_windows()) == 400
    if "MPM_MIRROR" not in os.environ:
        pytest.skip("MPM_MIRROR names no folder with the study's files")
    windows = module.study_windows()
    assert windows.layers == module.LAYERS and windows.size == 33
    assert module.some(windows, 3).tolist() == [0, (len(windows) - 1) // 2, len(windows) - 1]
    assert float(windows.canvas.std()) > 0.1


@pytest.mark.parametrize(
    ("value", "least", "verdict"),
    [(1.1, False, "met"), (1.2, False, "MISSED"), (1.2, True, "met"), (1.0, True, "MISSED")],
)
def test_a_row_says_whether_the_limit_is_kept(bench, capsys, value, least, verdict):
    bench("ratios").report("samples", value, 1.1, least=least)
    assert capsys.readouterr().out.split()[-1] == verdict


def test_a_ratio_is_the_median_of_those_within_turns(bench):
    "A slow turn falls on both: 2 / 1, 30 / 10 and 3 / 1"
    assert bench("ratios").ratio([2, 30, 3], [1, 10, 1]) == 3
