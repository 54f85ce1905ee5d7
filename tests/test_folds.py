from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from helpers import tiny, toy_cube, toy_study

from mpm import artefacts, folds, mae
from mpm.scaling import Scaling
from mpm.splits import Split, SplitSettings, make_split

RULES = SplitSettings(folds=4, block_km=6, dead_cells=2, seed=3)
WINDOW = 5
LAYERS = ("magnetics", "gravity")


def make_cube(seed) -> xr.Dataset:
    "24 x 24 cells of 1 km with gaps in two layers, and a deposit of two cells in each 6 km block"
    rng = np.random.default_rng(seed)
    evidence = rng.normal(size=(2, 24, 24)).astype("float32")
    evidence[rng.random(evidence.shape) < 0.05] = np.nan
    number = np.full((24, 24), -1, "int32")
    number[2::6, 2::6] = number[2::6, 3::6] = np.arange(16).reshape(4, 4)
    return xr.Dataset(
        {
            "evidence": (("layer", "y", "x"), evidence),
            "valid": (("y", "x"), rng.random((24, 24)) > 0.05),
            "MVT": (("y", "x"), number >= 0),
            "MVT_deposit": (("y", "x"), number),
        },
        coords={
            "layer": list(LAYERS),
            "kind": ("layer", ["continuous"] * 2),
            "y": -1000.0 * np.arange(24),
            "x": 1000.0 * np.arange(24),
        },
        attrs={"region": f"region {seed}"},
    )


@pytest.fixture
def cubes() -> dict[str, xr.Dataset]:
    "Two regions; labels are cut to valid cells as in a cube that was built"
    cubes = {"north": make_cube(1), "south": make_cube(2)}
    for cube in cubes.values():
        number = np.where(cube["valid"], cube["MVT_deposit"], -1)
        cube["MVT_deposit"].values[:], cube["MVT"].values[:] = number, number >= 0
    return cubes


def fold_of(cubes, split="blocks", number=0, **kwargs):
    return folds.make_fold(cubes, split, number, RULES, WINDOW, targets=["MVT"], **kwargs)


def split_of(cubes, split="blocks", number=0) -> Split:
    return make_split(list(cubes.values()), split, number, RULES, targets=["MVT"])


def untouched() -> Scaling:
    "A scaling that leaves everything as it is"
    values = {"low": -np.inf, "high": np.inf, "fill": 0.0, "mean": 0.0, "std": 1.0}
    values |= {"binary": False, "notes": "", "transform": "", "scale": 1.0}
    rest = {name: (value,) * 2 for name, value in values.items()}
    return Scaling(layers=LAYERS, **rest)


@pytest.mark.parametrize("kind", ["blocks", "random", "final"])
def test_what_is_held_out_does_not_touch_the_scaling(cubes, kind):
    "Evidence of test, validation and dead-zone cells may be anything"
    before = fold_of(cubes, kind).scaling
    changed = {region: cube.copy(deep=True) for region, cube in cubes.items()}
    for cube, train in zip(changed.values(), split_of(cubes, kind).train, strict=True):
        cube["evidence"].values[:, ~train] = 1e6
    assert fold_of(changed, kind).scaling == before


def test_training_cells_do_make_the_scaling(cubes):
    "One training cell's value moves the mean, or the test above would prove nothing"
    before = fold_of(cubes).scaling
    row, col = np.argwhere(split_of(cubes).train[1])[0]
    cubes["south"]["evidence"].values[0, row, col] = 2.0
    assert fold_of(cubes).scaling.mean[0] != before.mean[0]


def test_evidence_is_scaled_by_the_training_cells(cubes):
    "Centres of training cells have mean 0 and standard deviation 1, layer by layer"
    fold = fold_of(cubes)
    values = fold.windows.centres(fold.train)
    assert len(fold.train) == sum(part.sum() for part in split_of(cubes).train)
    np.testing.assert_allclose(np.nanmean(values, axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(np.nanstd(values, axis=0), 1, rtol=1e-6)


def test_a_backbones_own_scaling_is_kept(cubes):
    "Given a scaling, nothing is fitted, and centres are the raw evidence"
    fold = fold_of(cubes, scaling=untouched())
    assert fold.scaling == untouched()
    raw = [cube["evidence"].values for cube in cubes.values()]
    for layer, values in enumerate(fold.windows.centres().T):
        np.testing.assert_array_equal(values, fold.windows.take([plane[layer] for plane in raw]))


@pytest.mark.parametrize("kind", ["blocks", "random", "final"])
@pytest.mark.parametrize("number", [0, 3])
def test_numbers_of_centres_are_those_of_the_split(cubes, kind, number):
    "Disjoint, and each in the part that the split says"
    fold, split = fold_of(cubes, kind, number), split_of(cubes, kind, number)
    numbers = np.concatenate([fold.train, fold.validation, fold.test])
    assert len(set(numbers.tolist())) == len(numbers)
    for part in ("train", "validation", "test"):
        expected = fold.windows.take(getattr(split, part))
        np.testing.assert_array_equal(np.flatnonzero(expected), getattr(fold, part))
    assert (len(fold.test) == 0) == (kind == "final")
    assert (fold.split, fold.number) == (kind, number)


@pytest.mark.parametrize("kind", ["blocks", "final"])
def test_no_training_window_sees_a_held_out_cell(cubes, kind):
    "Held-out cells are painted; the paint shows in their own windows and in no training window"
    split = split_of(cubes, kind)
    for k, cube in enumerate(cubes.values()):
        cube["evidence"].values[:] = 0
        cube["evidence"].values[:, split.test[k] | split.validation[k]] = 99
    fold = fold_of(cubes, kind, scaling=untouched())
    assert not (fold.windows.gather(fold.train)[0] == 99).any()
    painted = fold.windows.gather(fold.validation)[0] == 99
    assert painted[:, :, WINDOW // 2, WINDOW // 2].all()


def test_a_split_that_leaks_is_refused(cubes, monkeypatch):
    "A fold is checked as it is used, whoever divided the cells"

    def leaky(regions, *_, **__):
        valid = [cube["valid"].values for cube in regions]
        nothing = tuple(np.zeros_like(cells) for cells in valid)
        return Split(tuple(valid), nothing, tuple(valid))

    monkeypatch.setattr(folds, "make_split", leaky)
    with pytest.raises(ValueError, match="leak: train and test cells of region 0"):
        fold_of(cubes)


def test_a_window_wider_than_the_dead_zone_is_refused(cubes):
    "Seven cells reach three, the dead zone is two wide"
    with pytest.raises(ValueError, match="within 3 cells of each other .*window of 7 cells"):
        folds.make_fold(cubes, "blocks", 0, RULES, 7, targets=["MVT"])


def test_a_parted_deposit_is_refused(cubes):
    "All positive cells of the north are said to be one deposit after the cells were divided"
    split = split_of(cubes)
    north = cubes["north"]["MVT_deposit"].values

    def before(*_, **__):
        north[north >= 0] = 7
        return split

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folds, "make_split", before)
        with pytest.raises(ValueError, match="deposit 7 of MVT in region 0 is parted"):
            fold_of(cubes)


@pytest.mark.parametrize("kind", ["blocks", "random"])
def test_the_scaling_of_another_fold_is_refused(cubes, kind):
    "Its training cells are this fold's test cells; its own scaling is taken"
    fold = fold_of(cubes, kind)
    assert fold_of(cubes, kind, scaling=fold.scaling).scaling == fold.scaling
    with pytest.raises(ValueError, match="the scaling was fitted on .* test cells of region 0"):
        fold_of(cubes, kind, number=2, scaling=fold.scaling)


def test_labels_follow_the_centres(cubes):
    "Positive cells have their deposit's number, of its own in each region, others -1"
    windows = fold_of(cubes).windows
    positive, deposit = folds.labels(cubes, windows, "MVT")
    planes = list(cubes.values())
    for k, (region, row, col) in enumerate(
        zip(windows.region, windows.row, windows.col, strict=True)
    ):
        number = planes[region]["MVT_deposit"].values[row, col]
        assert positive[k] == (number >= 0)
        assert deposit[k] == (-1 if number < 0 else number + folds.REGION_STEP * region)
    north, south = (set(deposit[positive & (windows.region == k)]) for k in range(2))
    assert north and south and not north & south


def test_settings_come_back_as_they_were_written(tmp_path):
    study = SimpleNamespace(processed=tmp_path / "mine")
    rules = replace(RULES, block_km=123.5)
    folds.write_settings(study, rules, preset="paper")
    assert folds.read_settings(study) == (rules, "paper")


def test_settings_of_a_former_version_still_read(tmp_path):
    "What they lack has its default"
    study = SimpleNamespace(processed=tmp_path)
    split = {"folds": 3, "block_km": 80.0, "dead_cells": 4, "seed": 1, "random_folds": 2}
    artefacts.write_json(tmp_path / "splits.json", {"preset": "demo", "split": split})
    rules, _ = folds.read_settings(study)
    assert rules == SplitSettings(folds=3, block_km=80.0, dead_cells=4, seed=1, random_folds=2)
    assert (rules.latitude_groups, rules.districts, rules.regions) == (6, 6, 0)


def test_missing_settings_say_which_notebook_writes_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="splits.json is missing; run notebook 02_mae"):
        folds.read_settings(SimpleNamespace(processed=tmp_path))


def test_a_fold_is_opened_as_its_backbone_knew_it(tmp_path, monkeypatch):
    "Scaled as in pretraining, not anew; a backbone of another fold has seen this one's test cells"
    cubes = {"north": toy_cube(1), "south": toy_cube(2)}
    study = toy_study(tmp_path, monkeypatch, cubes)
    rules = SplitSettings(folds=5, block_km=20, dead_cells=5, seed=7)
    made = folds.make_fold(cubes, "blocks", 1, rules, 9, targets=["MVT"])
    model = mae.build(tiny(), seed=1)
    layers = cubes["north"]["layer"].values.tolist()
    kept = {"layers": layers, "scaling": made.scaling, "facts": {}}
    for number in (1, 3):
        mae.save(model, mae.backbone_path(study, "blocks", number), **kept)
    fold, found = folds.open_fold(study, cubes, "blocks", 1, rules)
    assert fold.scaling == made.scaling and found.config == model.config
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(fold, part), getattr(made, part))
    with pytest.raises(
        ValueError, match="leak: the scaling was fitted on [0-9]+ test cells of region 0"
    ):
        folds.open_fold(study, cubes, "blocks", 3, rules)
