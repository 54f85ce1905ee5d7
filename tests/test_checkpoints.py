import os
from pathlib import Path

import numpy as np
import pytest
import torch

from mpm import artefacts, checkpoints
from mpm.checkpoints import Checkpoint, Progress, digest

MARK = {"seed": 1, "sizes": (3, 2)}  # a tuple, which JSON does not know


def begin(seed: int = 1) -> Progress:
    "Two layers that learn to sum three random numbers, with a rate that rises and falls"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=50)
    return Progress(model, optimizer, schedule, torch.Generator().manual_seed(seed))


def advance(progress: Progress, steps: int) -> Progress:
    "With a row of the history at every third step"
    for _ in range(steps):
        numbers = torch.rand(4, 3, generator=progress.generator)
        loss = (progress.model(numbers) - numbers.sum(1, keepdim=True)).square().mean()
        progress.optimizer.zero_grad()
        loss.backward()
        progress.optimizer.step()
        progress.schedule.step()
        progress.step += 1
        progress.losses.append(loss.detach())
        if progress.step % 3 == 0:
            progress.rows.append([progress.step, loss.item(), float("nan")])
            progress.losses = []
    return progress


def state(progress: Progress) -> list:
    "All that must be equal, bit by bit"
    optimizer = progress.optimizer.state_dict()
    return [
        digest(*progress.model.state_dict().values()),
        [digest(*map(part.get, sorted(part))) for _, part in sorted(optimizer["state"].items())],
        digest(progress.generator.get_state()),
        [group["lr"] for group in optimizer["param_groups"]],
        progress.schedule.state_dict(),
        progress.step,
        repr(progress.rows),
        [loss.item() for loss in progress.losses],
    ]


@pytest.fixture
def place(tmp_path):
    "A checkpoint after seven steps, in a folder that did not exist"
    path = tmp_path / "new" / "checkpoint.safetensors"
    checkpoints.write(path, advance(begin(), 7), MARK)
    return path


@pytest.mark.parametrize("steps", [0, 1, 3, 7])
def test_a_training_goes_on_as_if_it_had_not_stopped(tmp_path, steps):
    "Ten steps at once, or some before and the rest after: weights, moments, rate, draws, history"
    path = tmp_path / "checkpoint.safetensors"
    checkpoints.write(path, advance(begin(), steps), MARK)
    progress, checkpoint = begin(), Checkpoint(path, MARK, 5)
    checkpoint.resume(progress)
    assert progress.step == checkpoint.step == steps
    assert state(advance(progress, 10 - steps)) == state(advance(begin(), 10))


def test_nothing_is_left_out_of_the_file(place):
    "Whatever the fresh training held is replaced, be it of another seed"
    progress = begin(seed=2)
    Checkpoint(place, MARK, 5).resume(progress)
    assert state(progress) == state(advance(begin(), 7))


def test_what_was_read_does_not_hang_on_the_file(place):
    "The file may go while training goes on"
    progress = begin()
    Checkpoint(place, MARK, 5).resume(progress)
    place.write_bytes(bytes(place.stat().st_size))
    assert state(progress) == state(advance(begin(), 7))


def flip(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


DAMAGES = {
    "cut short": lambda content: content[:-9],
    "empty": lambda _: b"",
    "something else": lambda _: b"not a checkpoint, but long enough to be one",
    "a bit of a tensor": lambda content: flip(content, len(content) - 3),
    "a digit of the header": lambda content: content.replace(b'\\"step\\": 7', b'\\"step\\": 8'),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_left_out_with_a_warning(place, damage):
    "It names the file, and the training starts at its first step"
    whole = place.read_bytes()
    place.write_bytes(damage(whole))
    assert place.read_bytes() != whole
    progress, checkpoint = begin(), Checkpoint(place, MARK, 5)
    with pytest.warns(
        UserWarning, match=r"checkpoint .*checkpoint\.safetensors is damaged"
    ) as said:
        checkpoint.resume(progress)
    assert "training starts anew" in str(said[0].message) and len(said) == 1
    assert checkpoint.step == 0 and state(progress) == state(begin())


def test_weights_without_progress_are_no_checkpoint(place):
    "A file of another kind, and a folder"
    from safetensors.torch import save_file

    save_file({"model.0.weight": torch.zeros(2)}, place)
    with pytest.raises(ValueError, match="is damaged"):
        checkpoints.read(place)
    place.unlink()
    place.mkdir()
    with pytest.raises(ValueError, match="is damaged"):
        checkpoints.read(place)


def test_a_checkpoint_of_another_training_is_left_out_and_says_why(place):
    "What differs is named with both values, what is only there or only here too; the rest is not"
    mark = {"seed": 2, "sizes": [3, 2], "rate": 0.1}
    progress, checkpoint = begin(), Checkpoint(place, mark, 5)
    with pytest.warns(UserWarning) as said:
        checkpoint.resume(progress)
    text = str(said[0].message)
    assert (
        f"{place} is of another training (seed 1 there, 2 here, rate None there, 0.1 here)" in text
    )
    assert state(progress) == state(begin()) and str(checkpoint) == ""
    with pytest.warns(UserWarning, match=r"\(sizes \[3, 2\] there, None here\)"):
        Checkpoint(place, {"seed": 1}, 5).resume(begin())


@pytest.mark.filterwarnings("error")
def test_no_checkpoint_is_no_reason_to_warn(tmp_path):
    "The first start finds none, and a training may do without"
    for path in (tmp_path / "none.safetensors", None):
        progress, checkpoint = begin(), Checkpoint(path, MARK, 0)
        checkpoint.resume(progress)
        assert state(progress) == state(begin())
        checkpoint.update(advance(progress, 1))
        assert str(checkpoint) == (f"; the checkpoint of step 1 stays: {path}" if path else "")
        checkpoint.remove()
        checkpoint.remove()
    assert not list(tmp_path.iterdir())


def test_progress_is_written_when_it_is_due(tmp_path, monkeypatch):
    "Five minutes after the start, and five after the last write"
    path, clock = tmp_path / "checkpoint.safetensors", [1000.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock[0])
    progress, checkpoint = begin(), Checkpoint(path, MARK, 5)
    found = []
    for seconds in (299, 1, 299, 1):
        clock[0] += seconds
        checkpoint.update(advance(progress, 1))
        found.append(checkpoints.read(path)[1]["step"] if path.exists() else 0)
    assert found == [0, 2, 2, 4]


def test_only_one_of_several_processes_writes_and_removes(place):
    "All read"
    whole, progress = place.read_bytes(), begin()
    other = Checkpoint(place, MARK, 0, writes=False)
    other.resume(progress)
    assert progress.step == other.step == 7
    other.update(advance(progress, 1))
    other.remove()
    assert place.read_bytes() == whole


def test_a_failed_write_leaves_the_last_checkpoint(place, monkeypatch):
    "The disk is full in mid-write"
    whole = place.read_bytes()

    def full(fresh, content):
        with fresh.open("wb") as stream:
            stream.write(content[: len(content) // 2])
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.write(place, advance(begin(), 8), MARK)
    assert place.read_bytes() == whole and [*place.parent.iterdir()] == [place]


def test_a_write_that_was_killed_leaves_nothing_in_the_end(place):
    "Also where the training that went on ended before its first checkpoint"
    left = f"{place.stem}.tmp-{artefacts._MACHINE}-{2**30}-0123abcd{place.suffix}"
    place.with_name(left).write_bytes(b"half")
    checkpoint = Checkpoint(place, MARK, 5)
    checkpoint.resume(begin())
    assert checkpoint.step == 7
    checkpoint.remove()
    assert not [*place.parent.iterdir()]


def test_a_digest_sees_values_types_and_shapes():
    "Equal arrays have one, whatever holds them; the place of a boundary matters"
    numbers = np.arange(6, dtype="float32").reshape(2, 3)
    one = digest(numbers)
    assert len(one) == 16 and one == digest(torch.from_numpy(numbers))
    assert one == digest(np.asfortranarray(numbers))
    changed = numbers.copy()
    changed[1, 2] = np.nextafter(np.float32(5), np.float32(6))
    others = [
        digest(changed),
        digest(numbers.T),
        digest(numbers.astype("float64")),
        digest(numbers[0], numbers[1]),
        digest(numbers[:, :1], numbers[:, 1:]),
        digest(),
    ]
    assert len({one, *others}) == 7
