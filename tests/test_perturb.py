from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from helpers import toy_cube

from mpm import perturb
from mpm.folds import Fold, labels
from mpm.methods import Task
from mpm.windows import make_windows

PLANES = ["gravity", "rock=lime", "rock=shale"]


def cube(size=6):
    "One layer of numbers 0 to 35, and one of two classes; a deposit in each cell of the diagonal"
    numbers = np.arange(36, dtype="float32").reshape(6, 6)
    lime = (numbers % 2).astype("float32")
    number = np.where(np.eye(6, dtype=bool), numbers // 7, -1).astype("int32")
    planes = {"origin": ["gravity", "rock", "rock"], "group": ["physics", "geology", "geology"]}
    return xr.Dataset(
        {
            "evidence": (("layer", "y", "x"), np.stack([numbers, lime, 1 - lime])),
            "valid": (("y", "x"), np.ones((6, 6), bool)),
            "MVT": (("y", "x"), number >= 0),
            "MVT_deposit": (("y", "x"), number),
        },
        coords={"layer": PLANES} | {key: ("layer", of) for key, of in planes.items()},
    )


@pytest.fixture
def task():
    "Rows 0 to 3 train, with four deposits; row 4 validates; row 5 is tested"
    cubes = {"one": cube()}
    windows = make_windows(list(cubes.values()), 3)
    scaling = SimpleNamespace(binary=(False, True, True))
    rows = windows.row
    parts = [np.flatnonzero(part) for part in (rows < 4, rows == 4, rows == 5)]
    fold = Fold("blocks", 0, scaling, windows, *parts)
    positive, deposit = labels(cubes, windows, "MVT")
    return Task(fold, positive, deposit, tuple(PLANES), cubes, seed=7)


def known(task):
    return task.deposit[task.positive].tolist()


def test_whole_deposits_are_forgotten_in_training_only(task):
    "Half of four stay, a tenth leaves one; validation and test keep theirs, and the task is whole"
    half, tenth = (perturb.with_deposits(task, share, seed=3) for share in (0.5, 0.1))
    assert len(known(half)) == 4 and known(half)[2:] == [4, 5]
    assert len(known(tenth)) == 3 and set(known(tenth)) < set(known(half))
    assert (half.deposit[~half.positive] == -1).all()
    assert known(perturb.with_deposits(task, 1.0, seed=3)) == known(task) == [0, 1, 2, 3, 4, 5]
    drawn = {tuple(known(perturb.with_deposits(task, 0.5, seed=k))) for k in range(8)}
    assert len(drawn) > 1


def test_a_deposit_that_is_parted_is_forgotten_in_training_cells_only(task):
    "Its cell in the tested row stays positive"
    task.deposit[task.deposit == 5] = 0
    for seed in range(8):
        few = perturb.with_deposits(task, 0.1, seed=seed)
        assert known(few)[-2:] == [4, 0]


def test_lost_planes_count_as_never_observed(task):
    "Centres are NaN, windows hold the training mean, and the windows themselves stay as they were"
    windows = task.fold.windows
    lost = perturb.without(windows, np.array([False, True, True]))
    assert np.isnan(lost.centres()[:, 1:]).all()
    assert lost.centres()[:, 0].tolist() == windows.centres()[:, 0].tolist()
    values, observed = lost.gather(np.arange(4))
    assert not values[:, 1:].any() and not observed[:, 1:].any() and observed[:, 0].any()
    assert not np.isnan(windows.centres()).any()


def test_noise_has_the_deviation_asked_for(task):
    "In observed cells of the planes named, the same for one seed"
    windows = make_windows([toy_cube(1)], 3)
    noisy = perturb.noisy(windows, np.array([True, False]), 0.5, seed=1)
    change = noisy.centres() - windows.centres()
    assert np.std(change[:, 0]) == pytest.approx(0.5, rel=0.03) and not change[:, 1].any()
    assert not noisy.canvas[~windows.seen].any()
    again, other = (perturb.noisy(windows, np.array([True, False]), 0.5, seed=k) for k in (1, 2))
    assert again.canvas.equal(noisy.canvas) and not other.canvas.equal(noisy.canvas)


def test_shifted_evidence_lies_a_cell_away(task):
    "North is a row up; what leaves the map is missing on the other side"
    windows = task.fold.windows
    rows, cols = perturb.TOWARDS["north"]
    moved = windows.put(perturb.shifted(windows, rows, cols).centres(), 0)[0]
    plane = cube()["evidence"].values[0]
    assert moved[:5].tolist() == plane[1:].tolist() and np.isnan(moved[5]).all()
    moved = windows.put(perturb.shifted(windows, *perturb.TOWARDS["east"]).centres(), 0)[0]
    assert moved[:, 1:].tolist() == plane[:, :5].tolist() and np.isnan(moved[:, 0]).all()


def test_regions_do_not_mix_when_evidence_moves():
    "The first row of the second region is missing, not the first region's last"
    windows = make_windows([cube(), cube()], 3)
    moved = windows.put(perturb.shifted(windows, 1, 0).centres(), 1)[0]
    assert (
        np.isnan(moved[0]).all() and moved[1].tolist() == cube()["evidence"].values[0][0].tolist()
    )


def test_a_shift_beyond_the_padding_is_refused(task):
    with pytest.raises(ValueError, match="move by 2 rows and 0 columns where windows are 3 cells"):
        perturb.shifted(task.fold.windows, 2, 0)


def test_layers_groups_halves_noise_and_shifts_are_listed(task):
    "Each layer with all its planes, each group, and as many draws as asked for"
    found = perturb.perturbations(task, [0.1, 1.0], 3, seed=5)
    assert [(stress, name) for stress, _, name, _ in found] == [
        ("layer", "gravity"),
        ("layer", "rock"),
        ("group", "physics"),
        ("group", "geology"),
        ("half", ""),
        ("noise", ""),
        ("noise", ""),
        *(("shift", name) for name in ("north", "south", "west", "east")),
    ]
    assert [len(ways) for *_, ways in found] == [1] * 4 + [3] * 3 + [1] * 4
    lost = {name: way(task.fold.windows).centres() for _, _, name, [way] in found[1:4]}
    assert np.isnan(lost["rock"]).any(axis=0).tolist() == [False, True, True]
    assert np.isnan(lost["physics"]).any(axis=0).tolist() == [True, False, False]
    halves = [np.isnan(way(task.fold.windows).centres()).all(axis=0) for way in found[4][3]]
    assert all(half.tolist() in ([True, False, False], [False, True, True]) for half in halves)
    [noisy, *_] = found[6][3]
    change = noisy(task.fold.windows).centres() - task.fold.windows.centres()
    assert change[:, 0].any() and not change[:, 1:].any()  # classes take no noise
    assert [level for _, level, *_ in found[5:7]] == [0.1, 1.0]
