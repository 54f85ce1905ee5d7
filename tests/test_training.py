import numpy as np
import pytest
import torch
import xarray as xr
from helpers import tiny

from mpm import mae, training
from mpm.training import PretrainSettings, held_out_loss, pretrain, turn
from mpm.windows import make_windows

torch.set_num_threads(1)

TINY = tiny(decoder_width=16)
SETTINGS = PretrainSettings(steps=8, batch=8, reports=2)
CPU = torch.device("cpu")


def windows(change=None, size: int = 9):
    """Waves on a 24 x 20 grid, seen by two layers; `change(evidence)` may spoil some of it."""
    y, x = np.mgrid[:24, :20]
    wave = np.sin(x / 2) + np.cos(y / 3)
    evidence = np.stack([wave, -wave]).astype("float32")
    valid = np.ones(wave.shape, bool)
    if change is not None:
        change(evidence)
    cube = xr.Dataset(
        {"evidence": (("layer", "y", "x"), evidence), "valid": (("y", "x"), valid)},
        coords={"layer": ["wave", "mirror"]},
    )
    return make_windows([cube], size)


def train(settings=SETTINGS, seed=1, change=None, index=None, **options):
    toy = windows(change)
    index = np.arange(0, len(toy), 2) if index is None else index
    held_out = np.arange(1, len(toy), 2)
    return pretrain(TINY, toy, index, held_out, settings, seed=seed, device=CPU, **options)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("MPM_THREADS", "1")


def same_weights(one, other) -> bool:
    weights = other.state_dict()
    return all(torch.equal(value, weights[name]) for name, value in one.state_dict().items())


def test_the_loss_falls_below_that_of_the_layer_mean():
    "Waves are learnable: both losses fall, and the network fills better than the mean, 0"
    settings = PretrainSettings(steps=300, batch=32, rate=5e-3, reports=5)
    model, history = train(settings)
    assert history["step"].tolist() == [60, 120, 180, 240, 300]
    assert history["loss"].iloc[-1] < 0.8 * history["loss"].iloc[0]
    assert history["held_out"].iloc[-1] < 0.8 * history["held_out"].iloc[0]
    toy = windows()
    values, observed = toy.gather(np.arange(len(toy)))
    assert history["held_out"].iloc[-1] < (values[observed] ** 2).mean()
    assert not model.training


def test_same_seed_same_weights():
    "Bit by bit, whatever the global state is; another seed gives others"
    settings = PretrainSettings(steps=5, batch=8, reports=1, augment=True)
    torch.manual_seed(1)
    first, history = train(settings)
    torch.manual_seed(2)
    again, repeated = train(settings)
    assert same_weights(first, again)
    assert history.equals(repeated)
    other, _ = train(settings, seed=2)
    assert not same_weights(first, other)


def test_global_random_state_is_left_alone():
    "Neither torch's nor numpy's"
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    state, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    train()
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numbers).all()  # noqa: NPY002


def test_the_number_of_reports_does_not_change_the_training():
    "Looking at held-out windows draws nothing from the training's generator"
    one, other = (train(PretrainSettings(steps=6, batch=8, reports=n)) for n in (1, 6))
    assert same_weights(one[0], other[0])
    assert one[1]["loss"].iloc[0] == pytest.approx(other[1]["loss"].mean(), rel=1e-5)


def test_held_out_windows_are_not_trained_on():
    "Other held-out windows give the same weights"
    toy, half = windows(), np.arange(100)
    models = [
        pretrain(TINY, toy, half, held_out, SETTINGS, seed=1, device=CPU)[0]
        for held_out in (np.arange(100, 200), np.arange(300, 400))
    ]
    assert same_weights(*models)


def test_missing_evidence_does_not_become_a_missing_loss():
    "A layer with gaps, and one that is missing everywhere, are trained around"

    def spoil(evidence):
        evidence[0, 3:9, 3:12] = np.nan
        evidence[1] = np.nan

    model, history = train(PretrainSettings(steps=10, batch=16, reports=10), change=spoil)
    assert np.isfinite(history[["loss", "held_out"]]).all(axis=None)
    assert all(torch.isfinite(weight).all() for weight in model.state_dict().values())
    assert model.encoder.missing.weight.abs().sum() > 0


def test_a_loss_that_is_not_finite_stops_the_training():
    "With the step and what to do, before a weight is spoilt"

    def spoil(evidence):
        evidence[0] = np.inf

    with pytest.raises(FloatingPointError, match=r"at step 1: lower the rate \(0\.001\)"):
        train(change=spoil)


def test_no_training_windows_are_refused():
    with pytest.raises(ValueError, match="no training windows: use smaller blocks"):
        train(index=np.array([], int))


def test_no_held_out_windows_leave_an_empty_column():
    "Without a held-out part, as for the final model, there is no number to report"
    toy = windows()
    nothing = np.array([], int)
    _, history = pretrain(TINY, toy, np.arange(50), nothing, SETTINGS, seed=1, device=CPU)
    assert history["held_out"].isna().all() and history["loss"].notna().all()


@pytest.mark.parametrize("training_mode", [True, False])
def test_held_out_loss_is_repeatable(training_mode):
    "Same masks at every call; the mode, the gradients and the global state are left as they are"
    model, toy = mae.build(TINY, seed=0).train(training_mode), windows()
    state = torch.get_rng_state()
    first, again = (held_out_loss(model, toy, np.arange(200)) for _ in range(2))
    assert first == again > 0
    assert model.training == training_mode
    assert all(weight.grad is None for weight in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert held_out_loss(model, toy, np.arange(200), seed=1) != first


def test_held_out_loss_takes_at_most_some_windows():
    "Of fewer windows than `most` all are taken, so their order does not matter"
    model, toy = mae.build(TINY, seed=0), windows()
    few = np.arange(20)
    assert held_out_loss(model, toy, few) == held_out_loss(model, toy, few[::-1].copy())
    assert held_out_loss(model, toy, np.arange(300), most=5) != held_out_loss(
        model, toy, np.arange(300), most=6
    )


def test_turning_covers_the_symmetries_of_the_square():
    "All eight and no other occur, about equally often (5 standard errors)"
    window = torch.arange(9.0).reshape(1, 1, 3, 3)
    generator = torch.Generator().manual_seed(0)
    found = {}
    for _ in range(800):
        values, _ = turn(window, window > 4, generator)
        key = tuple(values.flatten().tolist())
        found[key] = found.get(key, 0) + 1
    symmetries = {
        tuple(np.rot90(window[0, 0].numpy()[:, ::flip], k).flatten().tolist())
        for k in range(4)
        for flip in (1, -1)
    }
    assert set(found) == symmetries and len(symmetries) == 8
    assert all(abs(count - 100) < 5 * np.sqrt(800 / 8 * 7 / 8) for count in found.values())


def test_turning_keeps_values_and_observed_aligned():
    "A gap turns with its cell, the centre stays, and layers stay apart"
    values = torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    observed = values > 0
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        turned, seen = turn(values, observed, generator)
        assert torch.equal(turned > 0, seen)
        assert torch.equal(turned[:, :, 2, 2], values[:, :, 2, 2])
        assert torch.equal(turned.flatten(2).sort().values, values.flatten(2).sort().values)


def test_turning_changes_what_is_trained_on():
    "With and without turns the weights differ"
    with_turns = PretrainSettings(steps=8, batch=8, reports=2, augment=True)
    assert not same_weights(train(with_turns)[0], train(SETTINGS)[0])


@pytest.mark.parametrize("steps", [1, 2, 3, 19, 20, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.1])
def test_the_rate_rises_to_its_peak_and_falls(steps, warmup):
    "For any number of steps, also where the rise is shorter than a step"
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = training._schedule(optimizer, 0.5, steps, warmup)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert 0 < min(rates) and max(rates) <= 0.5
    peak = int(np.argmax(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    if steps == 100:
        assert max(rates) > 0.49 and peak <= 10 and rates[-1] < 0.01


def test_threads_and_devices_are_set_by_name(monkeypatch):
    "MPM_THREADS decides the number of threads; auto takes a GPU only if there is one"
    before = torch.get_num_threads()
    try:
        monkeypatch.setenv("MPM_THREADS", "2")
        assert training.device_of("cpu") == CPU
        assert torch.get_num_threads() == 2
        for there, name in [(True, "cuda"), (False, "cpu")]:
            monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
            assert training.device_of("auto").type == name
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_learns_as_much_as_the_cpu():
    "The held-out losses agree after a few steps, and the model comes back on the CPU"
    toy = windows()
    index = np.arange(100)
    runs = [
        pretrain(TINY, toy, index, index + 100, SETTINGS, seed=1, device=torch.device(name))
        for name in ("cpu", "cuda")
    ]
    losses = [history["held_out"].to_numpy() for _, history in runs]
    np.testing.assert_allclose(losses[0], losses[1], rtol=0.02)
    assert next(runs[1][0].parameters()).device.type == "cpu"
