"""Backbones and classifiers of all folds, made one after another or side by side."""

import os

import numpy as np
import pytest
import torch
from helpers import tiny, written_study

from mpm import artefacts, datacube, mae, mapping, workers
from mpm.fine_tuning import FineTuneSettings
from mpm.folds import labels, open_fold
from mpm.pretraining import line, pretrain_fold, pretrain_folds
from mpm.splits import SplitSettings
from mpm.training import PretrainSettings
from mpm.tuning import tune_folds

RULES = SplitSettings(folds=5, block_km=20, dead_cells=5, seed=7, random_folds=1, regions=0)
STEPS = PretrainSettings(steps=6, batch=4, reports=2)
TUNING = FineTuneSettings(steps=4, batch=8, every=2, per_positive=3)
RUNS = [*(f"blocks {k}" for k in range(5)), "random 0", "final 0"]


@pytest.fixture
def study(tmp_path, monkeypatch):
    return written_study(tmp_path, monkeypatch)


def pretrained(study, processes):
    "Of every fold: its name, its weights and how they came about"
    options = {"seed": 3, "preset": "demo", "processes": processes}
    made = list(pretrain_folds(study, RULES, tiny(), STEPS, **options))
    folders = [mae.backbone_path(study, *run) for run in RULES.runs()]
    weights = [(folder / "model.safetensors").read_bytes() for folder in folders]
    return [name for name, _, _ in made], weights, made


def test_backbones_do_not_depend_on_how_many_are_made_at_a_time(study):
    "In the order of the folds, each what `pretrain_fold` makes on one thread"
    names, weights, _ = pretrained(study, 2)
    assert names == RUNS
    again, same, made = pretrained(study, 1)
    assert again == RUNS and same == weights
    cubes = datacube.read_cubes(study)
    torch.set_num_threads(1)
    fold, history = pretrain_fold(
        study, cubes, RULES, "blocks", 1, tiny(), STEPS, seed=3, preset="demo"
    )
    _, own, text = made[1]
    assert own.equals(history)
    assert text.rpartition(",")[0] == line(fold, history, 0).rpartition(",")[0]


def test_classifiers_do_not_depend_on_how_many_are_made_at_a_time(study):
    "One a fold and several for the map, each what `mapping.tune_and_predict` makes"
    pretrained(study, 1)
    options = {"samples": 5, "seed": 4, "ensemble": 2}
    one, two = (
        list(tune_folds(study, "MVT", RULES, TUNING, processes=count, **options))
        for count in (1, 2)
    )
    assert [made.name for made in one] == [*RUNS, "final 0, member 1"]
    for alone, beside in zip(one, two, strict=True):
        assert alone.name == beside.name and alone.rows.equals(beside.rows)
        weights = beside.fitted.classifier.state_dict()
        for name, value in alone.fitted.classifier.state_dict().items():
            assert torch.equal(value, weights[name])
        assert alone.fitted.history.equals(beside.fitted.history)
        # the notebook asks for it
        assert beside.fitted.history.attrs["limited"] == alone.fitted.history.attrs["limited"]
    cubes = datacube.read_cubes(study)
    fold, backbone = open_fold(study, cubes, "blocks", 1, RULES)
    given = labels(cubes, fold.windows, "MVT")
    _, rows = mapping.tune_and_predict(
        fold, backbone.encoder, "mae", *given, TUNING, samples=5, seed=4, device=torch.device("cpu")
    )
    assert one[1].rows.equals(rows) and len(rows)
    members = [made.fitted.classifier.linear.weight.detach().numpy() for made in one[-2:]]
    assert not np.array_equal(*members) and one[-1].rows.empty


def surroundings(number):
    threads = os.environ["MPM_THREADS"], torch.get_num_threads()
    return number, os.getpid(), threads, artefacts.quiet()


@pytest.mark.parametrize("processes", [1, 2])
def test_each_job_has_one_thread_and_results_come_in_order(monkeypatch, processes):
    "Bars of other processes are not drawn; what was set here is as before"
    monkeypatch.setenv("MPM_THREADS", "2")
    monkeypatch.delenv("MPM_RUN")
    jobs = [(number,) for number in range(5)]
    made = list(workers.in_processes(surroundings, jobs, processes, "jobs", ordered=True))
    numbers, places, threads, quiet = zip(*made, strict=True)
    assert list(numbers) == [0, 1, 2, 3, 4] and set(threads) == {("1", 1)}
    assert set(quiet) == {processes > 1} and (os.getpid() in places) == (processes == 1)
    assert os.environ["MPM_THREADS"] == "2" and not artefacts.quiet()
    some = workers.in_processes(surroundings, jobs, processes, "jobs")
    assert sorted(number for number, *_ in some) == [0, 1, 2, 3, 4]


def broken(number):
    raise FloatingPointError(f"loss is nan in job {number}")


@pytest.mark.parametrize("processes", [1, 2])
def test_what_goes_wrong_elsewhere_is_told_here(processes):
    with pytest.raises(FloatingPointError, match="loss is nan in job 0"):
        list(workers.in_processes(broken, [(0,)] * processes, processes, "jobs"))
