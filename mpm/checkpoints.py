"""Checkpoints: a training that was killed goes on where it was, to the bit."""

import hashlib
import json
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mpm import __version__, artefacts
from mpm.windows import Windows

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from lightning.fabric.wrappers import _FabricModule


@dataclass
class Progress:
    """All that a training carries from one step to the next.

    Attributes
    ----------
    model, optimizer, schedule
        Weights, their moments, and the learning rate.
    generator : torch.Generator
        Of batches, turns and masks.
    step : int
        The last one that was made.
    rows : list of list
        Of the history: step, loss, held-out loss.
    losses : list of Tensor ()
        Since the last row.
    """

    model: "_FabricModule"
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    generator: torch.Generator
    step: int = 0
    rows: list[list[float]] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)


class Checkpoint:
    """A file that holds the progress of one training, replaced every few minutes.

    Attributes
    ----------
    path : Path or None
        None: nothing is kept.
    fingerprint : dict
        What decides the result. Progress of a training with another one is not taken up.
    minutes : float
        Between two writes.
    writes : bool
        Whether this process writes and removes the file: one of those that train together does,
        all of them read it.
    step : int
        Of the progress in the file, 0 where there is none of this training.
    """

    def __init__(
        self, path: Path | None, fingerprint: dict, minutes: float, *, writes: bool = True
    ):
        self.path = path and Path(path)
        self.fingerprint = fingerprint
        self.minutes = minutes
        self.writes = writes and path is not None
        self.step = 0
        self._written = time.monotonic()

    def resume(self, progress: Progress) -> None:
        """Go on from the file, if there is one of this training; else say why not.

        A file that is damaged or of another training is left out with a warning.
        """
        if self.path is None or not self.path.exists():
            return
        try:
            tensors, state = read(self.path)
        except ValueError as error:
            warnings.warn(f"{error}; training starts anew", stacklevel=3)
            return
        # as the file has it: a tuple is a list there
        here = json.loads(json.dumps(self.fingerprint))
        if other := _differences(state["fingerprint"], here):
            warnings.warn(
                f"{self.path} is of another training ({other}); training starts anew and will "
                "replace it: give this one another place if you need both",
                stacklevel=3,
            )
            return
        _unpack(progress, tensors, state)
        self.step = progress.step

    def update(self, progress: Progress) -> None:
        """Write the progress if it is time to."""
        if (
            self.path is None
            or not self.writes
            or time.monotonic() - self._written < 60 * self.minutes
        ):
            return
        write(self.path, progress, self.fingerprint)
        self.step, self._written = progress.step, time.monotonic()

    def remove(self) -> None:
        """Delete the file, and what a killed process left beside it: the training has ended."""
        if self.path is None or not self.writes:
            return
        with artefacts.atomic(self.path) as fresh:  # this is what tidies up
            fresh.touch()
        self.path.unlink()

    def __str__(self) -> str:
        """Say what stays when a training fails, to be put behind a message; may be empty."""
        return f"; the checkpoint of step {self.step} stays: {self.path}" if self.step else ""


def digest(*parts: np.ndarray | Tensor) -> str:
    """Return a fingerprint of arrays (any shape), their types and values: 16 hexadecimal digits."""
    total = hashlib.sha256()
    for part in parts:
        part = torch.as_tensor(part).detach().cpu().contiguous()
        total.update(f"{part.dtype} {tuple(part.shape)} ".encode())
        total.update(part.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()[:16]


def fingerprint_of(
    model: nn.Module,
    fabric: "Fabric",
    windows: Windows,
    train: np.ndarray,
    held_out: np.ndarray,
) -> dict:
    """Return what decides a pretraining's result besides its settings.

    Parameters
    ----------
    model : Module
        Before its first step.
    fabric : Fabric
    windows : Windows
    train, held_out : array (n,) of int
        Numbers of centres.
    """
    places = (windows.region, windows.row, windows.col)
    return {
        "device": fabric.device.type,
        "precision": fabric.strategy.precision.precision,
        "processes": fabric.world_size,
        "threads": torch.get_num_threads(),
        "mpm": __version__,
        "torch": torch.__version__,
        "weights at the start": digest(*model.state_dict().values()),
        "evidence": digest(windows.canvas, windows.seen),
        "training centres": digest(train, *(place[train] for place in places)),
        "held-out centres": digest(held_out, *(place[held_out] for place in places)),
    }


def write(path: Path, progress: Progress, fingerprint: dict) -> None:
    """Write a training's progress, atomically: tensors (safetensors) and, as its header, JSON."""
    optimizer = progress.optimizer.state_dict()
    tensors = {f"model.{name}": value for name, value in progress.model.state_dict().items()}
    for number, moments in optimizer["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in moments.items()}
    tensors["generator"] = progress.generator.get_state()
    tensors["losses"] = torch.stack(progress.losses) if progress.losses else torch.empty(0)
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    state = {
        "fingerprint": fingerprint,
        "step": progress.step,
        "rows": progress.rows,
        "groups": optimizer["param_groups"],
        "schedule": progress.schedule.state_dict(),
    }
    header = {"state": json.dumps(state)}
    header["digest"] = _digest(tensors, header["state"])
    content = save(tensors, header)
    with artefacts.atomic(path) as fresh:
        # not by `save_file`: where it is killed, it leaves a file that nobody knows
        fresh.write_bytes(content)


def read(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Read what `write` wrote: tensors (any shape) by name, and the state.

    Raises
    ------
    ValueError
        If the file is damaged; the message names it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            # copies: what is mapped from the file would keep it, and may lie unaligned
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        if header["digest"] != _digest(tensors, header["state"]):
            raise ValueError("its contents do not match their checksum")
        return tensors, json.loads(header["state"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ValueError(f"checkpoint {path} is damaged ({error})") from error


def _unpack(progress: Progress, tensors: dict[str, Tensor], state: dict) -> None:
    own: dict[str, dict] = {"model": {}, "optimizer": {}}
    for name, value in tensors.items():
        owner, _, rest = name.partition(".")
        if rest:
            own[owner][rest] = value
    progress.model.load_state_dict(own["model"])
    moments: dict[int, dict] = {}
    for name, value in own["optimizer"].items():
        number, _, kind = name.partition(".")
        moments.setdefault(int(number), {})[kind] = value
    progress.optimizer.load_state_dict({"state": moments, "param_groups": state["groups"]})
    progress.schedule.load_state_dict(state["schedule"])
    progress.generator.set_state(tensors["generator"])
    device = next(progress.model.parameters()).device
    progress.losses = list(tensors["losses"].to(device))
    progress.step, progress.rows = state["step"], state["rows"]


def _digest(tensors: dict[str, Tensor], state: str) -> str:
    names = sorted(tensors)
    text = f"{names} {state}".encode()
    return digest(
        torch.frombuffer(bytearray(text), dtype=torch.uint8), *map(tensors.__getitem__, names)
    )


def _differences(there: dict, here: dict) -> str:
    """Name what differs between two fingerprints, empty where nothing does."""
    return ", ".join(
        f"{name} {there.get(name)} there, {here.get(name)} here"
        for name in [*here, *(there.keys() - here.keys())]
        if there.get(name) != here.get(name)
    )
