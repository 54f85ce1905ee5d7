import weakref
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401  (adds the .rio accessor)
import torch
import xarray as xr
from rasterio.transform import from_origin

from mpm import artefacts, mae, mapping
from mpm.classifier import Classifier
from mpm.fine_tuning import FineTuneSettings
from mpm.folds import Fold
from mpm.metrics import best_threshold
from mpm.windows import Windows, make_windows

TINY = mae.MAEConfig(layers=2, window=9, width=16, depth=1, heads=2)


def cube(shape=(8, 10), region="west", seed=0) -> xr.Dataset:
    """Random evidence on a grid of 1 km cells; one cell inside is no part of the study area."""
    rng = np.random.default_rng(seed)
    valid = np.ones(shape, bool)
    valid[2, 3] = False
    x, y = 500_500 + 1000.0 * np.arange(shape[1]), 900_500 - 1000.0 * np.arange(shape[0])
    made = xr.Dataset(
        {
            "evidence": (("layer", "y", "x"), rng.normal(size=(2, *shape)).astype("float32")),
            "valid": (("y", "x"), valid),
        },
        coords={
            "layer": ["gravity", "rock=shale"],
            "units": ("layer", ["mGal", "1"]),
            "origin": ("layer", ["gravity", "rock"]),
            "x": x,
            "y": y,
        },
        attrs={"study": "demo", "region": region},
    )
    transform = from_origin(500_000, 901_000, 1000, 1000)
    return made.rio.write_crs(32633).rio.write_transform(transform)


CUBES = {"west": cube(), "east": cube((6, 7), "east", seed=1)}


@pytest.fixture(scope="module")
def windows():
    return make_windows(list(CUBES.values()), 9)


@pytest.fixture
def classifier():
    """Untrained, with a head of some effect, so that likelihoods spread from 0 to 1."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Classifier(mae.build(TINY, seed=0).encoder, dropout=0.4)
    with torch.no_grad():
        model.linear.weight *= 4
        model.temperature.fill_(1.7)
    return model


def everything(windows) -> np.ndarray:
    return np.arange(len(windows))


# Monte Carlo dropout


@torch.no_grad()
def full_passes(classifier, windows, index, passes: int) -> np.ndarray:
    """Probabilities (passes, n), the whole network in training mode and run in each pass."""
    classifier.train()  # every dropout there may be, not that of the head alone
    inputs = windows.gather(index)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        found = torch.stack([classifier(*inputs).sigmoid() for _ in range(passes)])
    classifier.eval()
    return found.numpy().astype("float64")


def errors_off(classifier, windows, reference, index) -> tuple[float, float]:
    """Largest differences of mean and of spread from those of full passes, in standard errors."""
    n = len(reference)
    mean, spread = mapping.predict(classifier, windows, index, samples=n)
    middle, width = reference.mean(axis=0), reference.std(axis=0)
    fourth = ((reference - middle) ** 4).mean(axis=0)
    error = width * np.sqrt(2 / n)  # of a difference of two means of n samples
    error_of_spread = np.sqrt((fourth - width**4) / (4 * width**2) * 2 / n)  # delta method
    return np.abs((mean - middle) / error).max(), np.abs((spread - width) / error_of_spread).max()


@pytest.mark.parametrize("rate", [0.2, 0.4, 0.6])
def test_mean_and_spread_are_those_of_full_passes(classifier, windows, rate):
    """The backbone once and the head 2000 times says what 2000 full passes say

    To 4 standard errors at every fifth cell, which tell a rate that is off by 0.05 by its spread,
    and weights that are not scaled up for what is dropped by their mean.
    """
    index, classifier.dropout.p = everything(windows)[::5], rate
    reference = full_passes(classifier, windows, index, 2000)
    assert reference.std(axis=0).min() > 0.02  # there is something to compare
    assert max(errors_off(classifier, windows, reference, index)) < 4
    classifier.dropout.p = rate + 0.05
    assert errors_off(classifier, windows, reference, index)[1] > 4
    classifier.dropout.p = rate
    with torch.no_grad():
        classifier.linear.weight *= 1 - rate
    assert errors_off(classifier, windows, reference, index)[0] > 4


def test_samples_are_not_the_plain_pass(classifier, windows):
    "The mean of sampled probabilities is not the probability of the mean weight"
    index = everything(windows)
    mean, _ = mapping.predict(classifier, windows, index, samples=2000)
    plain, _ = mapping.predict(classifier, windows, index, samples=0)
    assert np.abs(mean - plain).max() > 0.01
    far = np.abs(plain - 0.5) > 0.3
    assert (np.abs(mean - 0.5)[far] < np.abs(plain - 0.5)[far]).mean() > 0.9  # drawn to the middle


def test_no_samples_give_the_plain_pass_without_spread(classifier, windows):
    "The calibrated sigmoid of the logit, temperature included"
    index = everything(windows)
    likelihood, spread = mapping.predict(classifier, windows, index, samples=0)
    classifier.eval()
    with torch.no_grad():
        features = classifier.features(*windows.gather(index))
        expected = torch.sigmoid(classifier.linear(features)[:, 0] / 1.7).numpy()
    np.testing.assert_allclose(likelihood, expected, atol=1e-6)
    assert (spread == 0).all()
    assert likelihood.dtype == spread.dtype == np.float32


def test_no_dropout_gives_no_spread(classifier, windows):
    "All samples are the plain pass"
    classifier.dropout.p = 0.0
    index = everything(windows)
    mean, spread = mapping.predict(classifier, windows, index, samples=20)
    plain, _ = mapping.predict(classifier, windows, index, samples=0)
    np.testing.assert_allclose(mean, plain, atol=1e-6)
    np.testing.assert_allclose(spread, 0, atol=1e-6)


@pytest.mark.parametrize("samples", [0, 30])
def test_the_batch_size_does_not_change_the_numbers(classifier, windows, samples):
    "Single windows, a batch that leaves one over, and all at once agree to 1e-6"
    index = everything(windows)[:25]
    found = [
        mapping.predict(classifier, windows, index, samples=samples, batch=batch)
        for batch in (1, 8, 1000)
    ]
    for mean, spread in found[1:]:
        np.testing.assert_allclose(mean, found[0][0], atol=1e-6)
        np.testing.assert_allclose(spread, found[0][1], atol=1e-6)


def test_cells_come_back_in_the_order_asked_for(classifier, windows):
    "Reversed centres give reversed numbers"
    index = everything(windows)
    straight = mapping.predict(classifier, windows, index, samples=10)
    reverse = mapping.predict(classifier, windows, index[::-1].copy(), samples=10)
    for one, other in zip(straight, reverse, strict=True):
        np.testing.assert_allclose(one, other[::-1], atol=1e-6)


def test_samples_depend_on_the_seed_alone(classifier, windows):
    "Same seed same numbers, other seed others, and the global state is left alone"
    index = everything(windows)
    state = torch.get_rng_state()
    first, again, other = (
        mapping.predict(classifier, windows, index, samples=10, seed=seed) for seed in (1, 1, 2)
    )
    assert (first[0] == again[0]).all() and (first[1] == again[1]).all()
    assert (first[0] != other[0]).any()
    assert torch.equal(torch.get_rng_state(), state)


def test_the_classifier_is_left_ready_and_unchanged(classifier, windows):
    "In evaluation mode, on the CPU, without gradients, with the weights it had"
    classifier.train()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    mapping.predict(classifier, windows, everything(windows), samples=5)
    assert not any(module.training for module in classifier.modules())
    assert {weight.device.type for weight in classifier.parameters()} == {"cpu"}
    assert all(weight.grad is None for weight in classifier.parameters())
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())


def test_want_of_memory_says_what_was_too_large(classifier, windows, monkeypatch):
    "Batch, window and layers, instead of bytes"

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")

    monkeypatch.setattr(Windows, "gather", full)
    with pytest.raises(MemoryError, match="prediction with batch 64 of .* 9 x 9 .* 2 layers: use"):
        mapping.predict(classifier, windows, everything(windows), batch=64)


def test_the_largest_batch_that_fits_is_taken(classifier, windows, monkeypatch):
    "64 and 32 windows are too many, 16 are not; the prediction is the same"
    expected = mapping.predict(classifier, windows, everything(windows), seed=7)
    gather, sizes = Windows.gather, []

    def small(self, index):
        sizes.append(len(index))
        if len(index) > 16:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")
        return gather(self, index)

    monkeypatch.setattr(Windows, "gather", small)
    monkeypatch.setattr(mapping, "_sizes", lambda _: [64, 32, 16, 8])
    found = mapping.predict(classifier, windows, everything(windows), seed=7)
    assert sizes[:3] == [64, 32, 16] and max(sizes[2:]) == 16
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    monkeypatch.setattr(mapping, "_sizes", lambda _: [64, 32])
    with pytest.raises(MemoryError, match="batch 32"):
        mapping.predict(classifier, windows, everything(windows))


# Ensembles


def test_one_member_predicts_what_it_does_alone(classifier, windows):
    "Bit by bit; there is no spread between members"
    index, shared = everything(windows), {"samples": 30, "seed": 7, "batch": 40}
    alone = mapping.predict(classifier, windows, index, **shared)
    *ours, spread = mapping.predict_ensemble([classifier], windows, index, **shared)
    for one, other in zip(ours, alone, strict=True):
        assert one.dtype == np.float32
        np.testing.assert_array_equal(one, other)
    assert (spread == 0).all() and spread.dtype == np.float32


def test_members_are_averaged(windows, monkeypatch):
    """By hand: the mean of 0.2 and 0.4, variances of dropout averaged, spread between the two

    Each member has masks of its own.
    """
    seeds = []

    def predict(member, windows, index, *, seed, **_):
        seeds.append(seed)
        return np.float32([member[0], 0.5]), np.float32([member[1], 0.1])

    monkeypatch.setattr(mapping, "predict", predict)
    members = [(0.2, 0.1), (0.4, 0.7)]
    likelihood, uncertainty, spread = mapping.predict_ensemble(members, windows, [0, 1], seed=7)
    np.testing.assert_allclose(likelihood, [0.3, 0.5], rtol=1e-6)
    np.testing.assert_allclose(uncertainty, [0.5, 0.1], rtol=1e-6)  # 0.01 and 0.49: mean 0.25
    np.testing.assert_allclose(spread, [0.1, 0], rtol=1e-6)
    assert seeds == [7, 8]


def other_head(seed: int) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Classifier(mae.build(TINY, seed=0).encoder, dropout=0.4)


def test_networks_of_several_seeds_are_averaged(windows):
    "Mean and standard deviation of what each says alone, whatever their order"
    index = everything(windows)
    each = [mapping.predict(other_head(k), windows, index, samples=0)[0] for k in range(3)]
    for order in ((0, 1, 2), (2, 0, 1)):
        likelihood, uncertainty, spread = mapping.predict_ensemble(
            map(other_head, order), windows, index, samples=0
        )
        np.testing.assert_allclose(likelihood, np.mean(each, axis=0), rtol=1e-5)
        np.testing.assert_allclose(spread, np.std(each, axis=0), rtol=1e-4)
        assert (uncertainty == 0).all() and spread.min() > 0


def test_members_do_not_pile_up_in_memory(windows):
    "When one is made, at most the one before is left of all the others"
    alive, most = weakref.WeakSet(), []

    def members():
        for k in range(4):
            most.append(len(alive))
            made = other_head(k)
            alive.add(made)
            yield made
            del made

    mapping.predict_ensemble(members(), windows, np.arange(3), samples=2)
    assert len(most) == 4 and max(most) <= 1


def test_an_ensemble_without_members_is_refused(windows):
    with pytest.raises(ValueError, match="at least one member"):
        mapping.predict_ensemble([], windows, np.arange(3))


# Tables


def fold(windows) -> Fold:
    index = everything(windows)
    return Fold("blocks", 3, None, windows, index[:20], index[20:30], index[30:])


def test_a_table_has_a_row_a_cell(windows):
    "Place, truth and prediction of each predicted cell; truth is given for all centres"
    rng = np.random.default_rng(0)
    number = rng.integers(-1, 4, len(windows))
    index = np.array([70, 3, 90])
    made = mapping.table(
        fold(windows),
        index,
        "mae",
        positive=number >= 0,
        deposit=number,
        likelihood=np.array([0.1, 0.2, 0.3]),
        threshold=0.25,
        uncertainty=np.array([0.01, 0.02, 0.03]),
    )
    assert list(made.columns) == mapping.PREDICTION_COLUMNS
    assert set(made["split"]) == {"blocks"} and set(made["method"]) == {"mae"}
    assert set(made["fold"]) == {"3"}
    for name in ("region", "row", "col"):
        assert made[name].tolist() == getattr(windows, name)[index].tolist()
    assert made["region"].tolist() == [0, 0, 1]
    assert made["deposit"].tolist() == number[index].tolist()
    assert made["positive"].tolist() == (number[index] >= 0).tolist()
    np.testing.assert_array_equal(made["likelihood"], np.float32([0.1, 0.2, 0.3]))
    np.testing.assert_array_equal(made["uncertainty"], np.float32([0.01, 0.02, 0.03]))
    assert set(made["threshold"]) == {np.float32(0.25)}


def test_a_fold_is_tuned_and_its_test_cells_predicted(windows):
    "Once, by the classifier that is returned; labels of test cells do not matter for it"
    settings = FineTuneSettings(steps=4, batch=8, every=2, per_positive=3, augment=False)
    number = np.where(np.arange(len(windows)) % 4 == 0, np.arange(len(windows)), -1)
    other = number.copy()
    other[30:] = -1
    found = [
        mapping.tune_and_predict(
            fold(windows), mae.build(TINY, seed=0).encoder, "mae", given >= 0, given, settings,
            samples=5, seed=1, device=torch.device("cpu"),
        )
        for given in (number, other)
    ]  # fmt: skip
    (fitted, rows), (_, unlabeled) = found
    index = fold(windows).test
    mean, spread = mapping.predict(fitted.classifier, windows, index, samples=5, seed=1)
    np.testing.assert_array_equal(rows["likelihood"], mean)
    np.testing.assert_array_equal(rows["uncertainty"], spread)
    assert rows["deposit"].tolist() == number[index].tolist()
    validation = fold(windows).validation
    chosen, _ = mapping.predict(fitted.classifier, windows, validation, samples=5, seed=1)
    assert fitted.threshold == best_threshold(number[validation] >= 0, chosen)
    assert set(rows["threshold"]) == {np.float32(fitted.threshold)}
    assert (rows["likelihood"] == unlabeled["likelihood"]).all()
    assert not unlabeled["positive"].any()


def test_no_cells_give_an_empty_prediction(classifier, windows):
    "A fold without test cells is no error"
    for numbers in mapping.predict(classifier, windows, np.array([], int)):
        assert numbers.shape == (0,) and numbers.dtype == np.float32


def test_methods_without_uncertainty_leave_it_empty(windows):
    "Not zero, which would mean certain"
    index = np.arange(4)
    number = np.full(len(windows), -1)
    made = mapping.table(
        fold(windows), index, "forest", positive=number >= 0, deposit=number,
        likelihood=np.zeros(4), threshold=0.5,
    )  # fmt: skip
    assert made["uncertainty"].isna().all()


def test_predictions_of_both_notebooks_are_read_together(tmp_path):
    "In one table; a missing one names its notebook, unless the network alone is asked for"
    study = SimpleNamespace(processed=tmp_path)
    artefacts.write_table(
        pd.DataFrame({"method": ["mae"]}), mapping.predictions_path(study, "MVT", "mae")
    )
    with pytest.raises(FileNotFoundError, match="04_baselines"):
        mapping.read_predictions(study, "MVT")
    assert mapping.read_predictions(study, "MVT", method="mae")["method"].tolist() == ["mae"]
    artefacts.write_table(
        pd.DataFrame({"method": ["forest"]}), mapping.predictions_path(study, "MVT", "baselines")
    )
    both = mapping.read_predictions(study, "MVT")["method"]
    assert both.tolist() == ["mae", "forest"]
    assert isinstance(both.dtype, pd.CategoricalDtype)
    assert mapping.read_predictions(study, "MVT", method="mae")["method"].tolist() == ["mae"]
    with pytest.raises(FileNotFoundError, match="03_fine_tuning"):
        mapping.read_predictions(study, "CD")


def test_predictions_are_joined_by_name(windows):
    "Names of either table are categories of both, which take a byte or two a row"
    index, number = np.arange(4), np.full(len(windows), -1)
    parts = [
        mapping.table(
            fold(windows), index, method, positive=number >= 0, deposit=number,
            likelihood=np.zeros(4), threshold=0.5,
        )
        for method in ("oracle", "forest")
    ]  # fmt: skip
    rows = mapping.joined(parts)
    assert rows["method"].tolist() == ["oracle"] * 4 + ["forest"] * 4
    assert set(rows["method"].cat.categories) == {"oracle", "forest"}
    assert rows.index.equals(pd.RangeIndex(8))
    expected = pd.concat(parts, ignore_index=True)
    pd.testing.assert_frame_equal(rows.astype(expected.dtypes), expected)


# Maps


def test_maps_reach_the_edges_of_the_grid(classifier, windows):
    "Every valid cell is predicted, corners too; the cell outside the study area is not"
    likelihood, _ = mapping.predict(classifier, windows, everything(windows), samples=0)
    maps = mapping.prediction_maps(CUBES, windows, likelihood=likelihood)
    for region, made in maps.items():
        plane = made["likelihood"].values
        assert plane.dtype == np.float32
        np.testing.assert_array_equal(np.isfinite(plane), CUBES[region]["valid"])
        corners = plane[[0, 0, -1, -1], [0, -1, 0, -1]]
        assert ((corners > 0) & (corners < 1)).all()


def test_every_value_lies_at_its_cell(windows):
    "Number of the centre in the cell of the centre, region by region; layers come first"
    numbers = np.arange(len(windows))
    two = np.stack([numbers, -numbers], axis=1)
    maps = mapping.prediction_maps(CUBES, windows, likelihood=numbers, attribution=two)
    for k, made in enumerate(maps.values()):
        here = windows.region == k
        rows, cols = windows.row[here], windows.col[here]
        np.testing.assert_array_equal(made["likelihood"].values[rows, cols], numbers[here])
        np.testing.assert_array_equal(made["attribution"].values[0, rows, cols], numbers[here])
        np.testing.assert_array_equal(made["attribution"].values[1, rows, cols], -numbers[here])


def test_maps_keep_the_geometry_of_their_cube(windows):
    "CRS, transform, coordinates and the names of layers"
    maps = mapping.prediction_maps(CUBES, windows, attribution=np.zeros((len(windows), 2)))
    for region, made in maps.items():
        assert made.rio.crs == CUBES[region].rio.crs
        assert made.rio.transform() == CUBES[region].rio.transform()
        np.testing.assert_array_equal(made["x"], CUBES[region]["x"])
        np.testing.assert_array_equal(made["y"], CUBES[region]["y"])
        assert made["layer"].values.tolist() == ["gravity", "rock=shale"]
        assert made.attrs["region"] == region
