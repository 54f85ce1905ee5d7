import math
import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import tiny, writers
from safetensors.torch import load_file, save_file

from mpm import artefacts, batch_parts, checkpoints, mae, masking, training
from mpm.devices import fabric_on
from mpm.training import PretrainSettings, held_out_loss, pretrain, turn
from mpm.windows import make_windows

torch.set_num_threads(1)  # in the processes that import this file, too

TINY = tiny(decoder_width=16)
SETTINGS = PretrainSettings(steps=8, batch=8, reports=2)
CPU = torch.device("cpu")
posix = pytest.mark.skipif(os.name == "nt", reason="needs fork and signals of POSIX")


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


def train(settings=SETTINGS, seed=1, change=None, index=None, held_out=None, **options):
    toy = windows(change)
    index = np.arange(0, len(toy), 2) if index is None else index
    held_out = np.arange(1, len(toy), 2) if held_out is None else held_out
    return pretrain(TINY, toy, index, held_out, settings, seed=seed, device=CPU, **options)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("MPM_THREADS", "1")


def same_weights(one, other) -> bool:
    weights = other.state_dict()
    return all(torch.equal(value, weights[name]) for name, value in one.state_dict().items())


def stop(monkeypatch, step: int, error: BaseException):
    "Raise an error after so many steps"
    make = training._step

    def made(progress, *others):
        if progress.step == step:
            raise error
        make(progress, *others)

    monkeypatch.setattr(training, "_step", made)


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


def test_extreme_values_leave_the_last_good_checkpoint(tmp_path):
    "One infinite cell, met after some steps: the message names the file, whose weights are finite"

    def spoil(evidence):
        evidence[0, 0, 0] = np.inf

    toy, path = windows(), tmp_path / "checkpoint.safetensors"
    sees = (toy.row < 5) & (toy.col < 5)
    index = np.concatenate([np.flatnonzero(~sees), np.flatnonzero(sees)[:5]])
    with pytest.raises(FloatingPointError) as said:
        train(replace(SETTINGS, steps=100), change=spoil, index=index, checkpoint=path, minutes=0)
    tensors, state = checkpoints.read(path)
    assert state["step"] > 0
    assert f"at step {state['step'] + 1}: lower the rate (0.001)" in str(said.value)
    assert str(said.value).endswith(f"; the checkpoint of step {state['step']} stays: {path}")
    assert all(torch.isfinite(value).all() for value in tensors.values())


def test_a_gradient_that_is_not_finite_spoils_no_weight(tmp_path, monkeypatch):
    "Although the loss still is"
    path = tmp_path / "checkpoint.safetensors"
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(math.nan))
    with pytest.raises(FloatingPointError, match="the norm of its gradient nan at step 1: lower"):
        train(checkpoint=path, minutes=0)
    assert not path.exists()


def test_a_batch_that_does_not_fit_says_what_to_lower(tmp_path):
    "What the system refuses: more windows than any address space holds"
    with pytest.raises(MemoryError) as said:
        train(replace(SETTINGS, batch=10**15))
    text = "pretraining with batch 1000000000000000 of windows of 9 x 9 cells and 2 layers: lower"
    assert text in str(said.value)
    assert str(said.value).endswith(
        "`micro`, the windows at a time (now all), which gives the same result to rounding"
    )


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        MemoryError("Unable to allocate 9. GiB for an array"),
    ],
    ids=["GPU", "CPU", "numpy"],
)
def test_whoever_runs_out_of_memory_the_checkpoint_stays(tmp_path, monkeypatch, error):
    "At step 4, with two windows at a time; training can go on from step 3"
    path = tmp_path / "checkpoint.safetensors"
    stop(monkeypatch, 3, error)
    with pytest.raises(MemoryError, match=r"batch 8 of windows of 9 x 9 .*\(now 2\)") as said:
        train(replace(SETTINGS, micro=2), checkpoint=path, minutes=0)
    assert str(said.value).endswith(f"; the checkpoint of step 3 stays: {path}")
    assert checkpoints.read(path)[1]["step"] == 3


def test_other_errors_are_not_taken_for_a_lack_of_memory(monkeypatch):
    stop(monkeypatch, 1, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        train()


def test_no_training_windows_are_refused():
    with pytest.raises(ValueError, match="no training windows: use smaller blocks"):
        train(index=np.array([], int))


def test_no_held_out_windows_leave_an_empty_column():
    "Without a held-out part, as for the final model, there is no number to report"
    toy = windows()
    nothing = np.array([], int)
    _, history = pretrain(TINY, toy, np.arange(50), nothing, SETTINGS, seed=1, device=CPU)
    assert history["held_out"].isna().all() and history["loss"].notna().all()


# Parts of a batch


def wrapped(model):
    "As one process trains it"
    fabric = fabric_on("cpu")
    return fabric.setup_module(model), fabric


def gappy(evidence):
    "The west of one layer is missing, and all layers of the north-east"
    evidence[0, :, :8] = np.nan
    evidence[:, :12, 14:] = np.nan


@pytest.mark.parametrize("micro", [1, 3, 8, 20])
def test_parts_of_a_batch_add_up_to_its_gradient(micro):
    "Windows with many gaps weigh less: the gradient and the loss are those of the whole batch"
    toy, config = windows(gappy), TINY
    index = torch.tensor([0, 7, 19, 50, 110, 118, 119, 300, 301, 470])
    mask = mae.draw_mask(10, config, torch.Generator().manual_seed(1))
    counts = (toy.gather(index)[1] & mae.masked_cells(mask, config)).flatten(1).sum(1)
    assert counts.max() > 3 * counts.min()
    found = []
    for threads, size in ((1, 0), (1, micro), (3, micro)):
        torch.set_num_threads(threads)
        model, fabric = wrapped(mae.build(config, 1))
        loss = training._backward(model, fabric, toy, index, mask, 5, size)
        found.append([loss, *(weight.grad for weight in model.parameters())])
    largest = max(gradient.abs().max() for gradient in found[0][1:]).item()
    for whole, parts, beside in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6 * largest)
        assert torch.equal(beside, parts) or len(index) <= micro  # by threads, to the bit


def test_a_part_without_observed_cells_teaches_nothing():
    "First, last or alone: no NaN, and the gradient of the others"
    toy = windows(lambda evidence: evidence[:, :, :10].fill(np.nan))
    blind, sees = np.flatnonzero(toy.col == 0)[:2], np.flatnonzero(toy.col == 19)[:2]
    found = []
    for index in ([*blind, *sees], [*sees, *blind], sees, blind):
        model, fabric = wrapped(mae.build(TINY, 1))
        visible, index = torch.tensor([[0, 4]]).expand(len(index), -1), np.array(index)
        mask = masking.Mask(visible, torch.zeros(*visible.shape, 0, dtype=torch.bool))
        loss = training._backward(model, fabric, toy, torch.as_tensor(index), mask, 0, 2)
        found.append([loss, model.fill.weight.grad])
    for loss, gradient in found[:2]:
        torch.testing.assert_close([loss, gradient], found[2])
    assert found[3][0] == 0 and not found[3][1].any()


def test_a_batch_in_parts_trains_alike(monkeypatch):
    "The same windows, turns and masks are drawn, no more than three at a time; losses agree"
    settings = PretrainSettings(steps=6, batch=10, reports=6, augment=True)
    _, whole = train(settings, change=gappy)
    sizes, error = [], mae.MaskedAutoencoder.squared_error

    def spied(model, values, observed, visible):
        sizes.append(len(values))
        return error(model, values, observed, visible)

    monkeypatch.setattr(mae.MaskedAutoencoder, "squared_error", spied)
    _, parts = train(replace(settings, micro=3), change=gappy)
    assert [size for size in sizes if size < 11] == [3, 3, 3, 1] * 6  # others: held-out windows
    np.testing.assert_allclose(parts["loss"], whole["loss"], rtol=1e-5)
    np.testing.assert_allclose(parts["held_out"], whole["held_out"], rtol=1e-4)


def test_the_published_batch_is_trained_in_parts():
    "1024 windows at a time would need more memory than most machines have"
    paper = training.PRETRAIN_PRESETS["paper"]
    assert paper.batch == 1024 and paper.micro == batch_parts.AUTO
    sizes = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_parts, "CPU_MICRO", 4)
        patch.setattr(training, "_backward", lambda *given: sizes.append(given[-1]) or stopped())
        for micro in (batch_parts.AUTO, 0, 7):
            with pytest.raises(KeyboardInterrupt):
                train(replace(SETTINGS, micro=micro))
    assert sizes == [4, 0, 7], "eight windows in two parts, unless the settings say otherwise"


def stopped():
    raise KeyboardInterrupt


def test_losses_may_be_looked_at_later(tmp_path, monkeypatch):
    "Then a step that spoils weights is still named, and no checkpoint is written after it"
    whole, history = train()
    monkeypatch.setattr(training, "_between_looks", lambda device: 3)
    late, again = train()
    assert same_weights(whole, late) and history.equals(again)
    path, make, calls = tmp_path / "checkpoint.safetensors", training._gradient, []

    def spoiled(*given):
        calls.append(1)
        return make(*given) * (math.nan if len(calls) == 4 else 1.0)

    monkeypatch.setattr(training, "_gradient", spoiled)
    with pytest.raises(FloatingPointError, match=r"at step 4: .*checkpoint of step 3 stays"):
        train(replace(SETTINGS, reports=1), checkpoint=path, minutes=0)
    assert len(calls) == 6 and checkpoints.read(path)[1]["step"] == 3


def test_the_checkpoint_stays_until_the_model_is_kept(tmp_path):
    "A process that is killed while it saves goes on from there, and ends with the same weights"
    path, seen = tmp_path / "checkpoint.safetensors", []

    def killed(model):
        assert path.exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(checkpoint=path, minutes=0, keep=killed)
    assert path.exists()
    made, history = train(checkpoint=path, minutes=0, keep=seen.append)
    assert not path.exists() and seen == [made]
    whole, first = train()
    assert same_weights(made, whole) and history.equals(first)


# Several processes, and other precisions

SHARED = PretrainSettings(steps=12, batch=9, reports=12, augment=True, micro=2)
BOTH = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_training
test_training.together(Path(sys.argv[2]))
"""


def together(folder: Path):
    "What each of two processes does: train, be interrupted, and go on"
    fabric = fabric_on("cpu", devices=2)
    found = {"rank": fabric.global_rank, "threads": torch.get_num_threads()}
    own = {"fabric": fabric, "change": gappy}
    model, history = train(SHARED, **own)
    if fabric.is_global_zero:
        save_file(model.state_dict(), folder / "weights.safetensors")
    found["whole"] = outcome(model, history)
    own |= {"checkpoint": folder / "checkpoint.safetensors", "minutes": 0}
    with pytest.MonkeyPatch.context() as patch, suppress(KeyboardInterrupt):
        stop(patch, 5, KeyboardInterrupt())
        train(SHARED, **own)
    fabric.barrier()  # the first process writes the last checkpoint
    found["elsewhere"], found["few"] = (
        said(
            train,
            SHARED,
            **own | {"checkpoint": folder / f"{fabric.global_rank or 'checkpoint'}.safetensors"},
        ),
        said(train, replace(SHARED, batch=1), fabric=fabric),
    )
    found["resumed"] = outcome(*train(SHARED, **own))
    artefacts.write_json(folder / f"{fabric.global_rank}.json", found)


def said(call, *given, **options) -> str:
    with pytest.raises(ValueError) as caught:
        call(*given, **options)
    return str(caught.value)


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> tuple[Path, list[dict]]:
    "The folder of two processes that trained together, and what each found"
    folder = tmp_path_factory.mktemp("shared")
    script = folder / "script.py"
    script.write_text(BOTH)
    command = [sys.executable, str(script), str(Path(__file__).parent), str(folder)]
    environment = os.environ | {"MPM_THREADS": "2"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder, [artefacts.read_json(folder / f"{rank}.json") for rank in (0, 1)]


def test_two_processes_train_as_one_does(shared):
    "Same batches, though 9 windows are 5 and 4: losses and weights agree to rounding"
    folder, (first, second) = shared
    assert (first["rank"], second["rank"]) == (0, 1)
    assert first["threads"] == second["threads"] == 1  # two a machine
    model, history = train(SHARED, change=gappy)
    np.testing.assert_allclose(first["whole"]["history"], history.to_numpy(), rtol=1e-5)
    weights = load_file(folder / "weights.safetensors")
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weights[name], weight, rtol=1e-4, atol=1e-6, msg=name)


def test_all_processes_have_the_same_network(shared):
    "And the same history, to the bit"
    first, second = shared[1]
    assert first["whole"] == second["whole"]


def test_two_processes_go_on_from_their_checkpoint(shared):
    "To the bit; the first one has removed it at the end"
    folder, found = shared
    assert all(each["resumed"] == each["whole"] for each in found)
    assert not list(folder.glob("checkpoint*"))


def test_processes_that_see_different_checkpoints_do_not_train(shared):
    "One goes on from step 5, one would start anew: both stop"
    for each in shared[1]:
        assert "checkpoint.safetensors" in each["elsewhere"] or "1.safetensors" in each["elsewhere"]
        assert "differs between processes (0 to 5): keep files where" in each["elsewhere"]


def test_a_batch_must_suffice_for_all_processes(shared):
    for each in shared[1]:
        assert each["few"].startswith("a batch of 1 windows cannot be shared by 2 processes: raise")


def test_half_precision_trains_nearly_alike():
    "bfloat16 on the CPU: losses differ, by less than a percent or two"
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    settings = replace(SETTINGS, steps=20, reports=20)
    half, whole = train(settings, fabric=fabric)[1], train(settings)[1]
    assert (half["loss"] != whole["loss"]).any() and (half["held_out"] != whole["held_out"]).any()
    np.testing.assert_allclose(half, whole, rtol=0.02)


# Killed, and started again

LONG = PretrainSettings(steps=120, batch=4, reports=7, augment=True, micro=3)


def outcome(model, history) -> dict:
    "All that training returns, for comparison bit by bit"
    weights = checkpoints.digest(*model.state_dict().values())
    return {"weights": weights, "history": history.to_numpy().tolist()}


def live(folder: Path):
    "Train from wherever the last life ended, a checkpoint at every step"
    result = outcome(*train(LONG, checkpoint=folder / "checkpoint.safetensors", minutes=0))
    artefacts.write_json(folder / "result.json", result)


LIFE = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_training

def write(number):
    if number == 2:  # 1: ready
        test_training.live(Path(sys.argv[2]))
    if number > 2:
        time.sleep(60)
"""


def until(told, seconds: float = 60):
    end = time.monotonic() + seconds
    while not told():
        assert time.monotonic() < end, "the training process does nothing"
        time.sleep(0.0005)


@posix
def test_killed_ten_times_the_training_ends_as_if_it_had_not_been(tmp_path):
    "SIGKILL at random moments; each life goes on where the last one ended"
    expected, chance = outcome(*train(LONG)), random.Random(0)
    path, result = tmp_path / "checkpoint.safetensors", tmp_path / "result.json"
    kills = 0

    def stamp():
        with suppress(FileNotFoundError):
            return path.stat().st_mtime_ns

    with writers(LIFE, str(Path(__file__).parent), str(tmp_path)) as writer:
        while kills < 10:
            before, step = stamp(), checkpoints.read(path)[1]["step"] if path.exists() else 0
            with writer():
                until(lambda before=before: stamp() != before or result.exists())
                time.sleep(chance.uniform(0, 0.03))
            if result.exists():  # too slow a murderer, on a busy machine
                assert artefacts.read_json(result) == expected
                result.unlink()
            elif path.exists():  # else killed between the end and the result
                kills += 1
                assert checkpoints.read(path)[1]["step"] > step
        with writer():
            until(result.exists)
    assert artefacts.read_json(result) == expected
    assert [*tmp_path.iterdir()] == [result], "half a file was left"


@pytest.mark.parametrize("step", [0, 3, 4, 7])
def test_a_checkpoint_does_not_change_the_result(tmp_path, monkeypatch, step):
    "Stopped before, between, at and after reports, or never: equal to a run without, bit by bit"
    settings = replace(SETTINGS, augment=True)
    expected, path = outcome(*train(settings)), tmp_path / "checkpoint.safetensors"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop(patch, step, KeyboardInterrupt())
        train(settings, checkpoint=path, minutes=0)
    assert path.exists() == (step > 0)
    made = []
    make = training._step
    monkeypatch.setattr(training, "_step", lambda *given: (made.append(1), make(*given)))
    assert outcome(*train(settings, checkpoint=path)) == expected
    assert len(made) == 8 - step
    assert not list(tmp_path.iterdir()), "it is removed when training ends"
    assert outcome(*train(settings, checkpoint=path, minutes=0)) == expected
    assert not list(tmp_path.iterdir())


@pytest.fixture
def unfinished(tmp_path, monkeypatch):
    "A checkpoint after three of eight steps"
    path = tmp_path / "checkpoint.safetensors"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop(patch, 3, KeyboardInterrupt())
        train(checkpoint=path, minutes=0)
    return path


def raised(evidence):
    evidence[1, 3, 3] += 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 2}, r"seed 1 there, 2 here, weights at the start \w+ there, \w+ here"),
        ({"settings": replace(SETTINGS, rate=0.5)}, r"rate 0\.001 there, 0\.5 here"),
        ({"settings": replace(SETTINGS, micro=4)}, "micro 0 there, 4 here"),
        ({"index": np.arange(2, 480, 2)}, r"training centres \w+ there, \w+ here"),
        ({"held_out": np.arange(3, 480, 2)}, r"held-out centres \w+ there, \w+ here"),
        ({"change": raised}, r"evidence \w+ there, \w+ here"),
    ],
)
def test_another_training_does_not_take_up_the_checkpoint(unfinished, change, named):
    "A warning says what differs, and the result is that of a fresh start"
    expected = outcome(*train(**change))
    with pytest.warns(UserWarning, match=rf"is of another training \({named}\)"):
        assert outcome(*train(checkpoint=unfinished, **change)) == expected
    assert not unfinished.exists()


def test_another_number_of_threads_is_another_training(unfinished, monkeypatch):
    "It may give other weights"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    with pytest.warns(UserWarning, match=r"\(threads 1 there, 3 here\)"):
        train(checkpoint=unfinished)


def test_a_damaged_checkpoint_means_a_fresh_start(unfinished):
    "Never a crash; the result is that of an uninterrupted run"
    unfinished.write_bytes(unfinished.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=r"checkpoint\.safetensors is damaged .* starts anew"):
        assert outcome(*train(checkpoint=unfinished)) == outcome(*train())
    assert not unfinished.exists()


# Held-out loss


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_learns_as_much_as_the_cpu():
    "In bfloat16, compiled or not: held-out losses agree, and the model comes back on the CPU"
    toy = windows()
    index = np.arange(100)
    runs = [
        pretrain(
            TINY, toy, index, index + 100, replace(SETTINGS, compile=compiled), seed=1, device=name
        )
        for name, compiled in (("cpu", False), ("cuda", False), ("cuda", True))
    ]
    losses = [history["held_out"].to_numpy() for _, history in runs]
    for other, (model, _) in zip(losses[1:], runs[1:], strict=True):
        np.testing.assert_allclose(losses[0], other, rtol=0.02)
        assert next(model.parameters()).device.type == "cpu"
        assert held_out_loss(model, toy, index + 100) == pytest.approx(other[-1], rel=0.02)
