"""Pretraining: the masked autoencoder learns from unlabeled windows."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from mpm import __version__, artefacts, mae
from mpm.checkpoints import Checkpoint, Progress, digest
from mpm.masking import Mask
from mpm.windows import Windows


def device_of(name: str) -> torch.device:
    """Return a device by name; "auto" takes a CUDA device if there is one.

    Also sets the number of CPU threads (`artefacts.threads`): the same number gives the same
    weights, another number may not. And has freed memory kept for the next step.
    """
    _keep_freed_memory()
    torch.set_num_threads(artefacts.threads())
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _keep_freed_memory() -> None:
    """Tell glibc not to hand freed tensors back to the system at every step.

    Fetching the same pages anew costs about half of a small model's training time on a CPU.
    """
    libc = _glibc()
    if libc:
        libc.mallopt(-3, 1 << 28)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 1 << 27)  # M_TRIM_THRESHOLD: what is kept, 128 MB


def give_memory_back() -> None:
    """Hand freed memory back to the system: what the last training left lies scattered in it."""
    libc = _glibc()
    if libc:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    # not by `find_library`: it starts a compiler, and the fork looks as large as this process
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None


@dataclass(frozen=True)
class PretrainSettings:
    """How the masked autoencoder is trained; the defaults are the paper's.

    Source: Daruna et al. 2024, arXiv:2406.12756, and its released configuration (15 epochs of 812
    steps of 1024 windows).
    """

    steps: int = 12180
    batch: int = 1024  # windows a step
    rate: float = 1e-3
    weight_decay: float = 0.01
    clip: float = 1.0  # largest gradient norm
    warmup: float = 0.05  # share of steps in which the rate rises
    augment: bool = False  # flips and quarter turns: right where no layer has a direction
    reports: int = 20  # how often the held-out loss is taken
    micro: int = 0  # windows in memory at a time, for less of it; 0: the whole batch


PRETRAIN_PRESETS = {
    "paper": PretrainSettings(micro=128),  # 2.1 GB instead of 7.6 GB with 14 layers, as fast
    "demo": PretrainSettings(steps=700, batch=64, rate=2e-3, augment=True),
}


def pretrain(
    config: mae.MAEConfig,
    windows: Windows,
    train: np.ndarray,
    held_out: np.ndarray,
    settings: PretrainSettings,
    *,
    seed: int,
    device: torch.device,
    label: str = "pretraining",
    checkpoint: Path | None = None,
    minutes: float = 5,
) -> tuple[mae.MaskedAutoencoder, pd.DataFrame]:
    """Train a masked autoencoder on unlabeled windows.

    Parameters
    ----------
    config : MAEConfig
    windows : Windows
    train, held_out : array of int
        Centres to train on, and to report the loss on (nothing is chosen by it).
    settings : PretrainSettings
    seed : int
        Decides weights, batches, masks and turns.
    device : torch.device
    label : str
        Name of the progress bar.
    checkpoint : Path, optional
        A file that keeps the progress while training. If the process is killed, the next call with
        the same arguments goes on from there and returns what an uninterrupted one would have, to
        the bit on the same machine. It is removed at the end. By default nothing is kept.
    minutes : float
        Between two checkpoints.

    Returns
    -------
    model : MaskedAutoencoder
        On the CPU, in evaluation mode.
    history : DataFrame
        step, loss (training, mean since the last report), held_out.

    Raises
    ------
    ValueError
        If there are no training windows.
    FloatingPointError
        If the loss or its gradient is no longer finite; the last checkpoint stays.
    MemoryError
        If a batch does not fit; the last checkpoint stays.
    """
    if len(train) == 0:
        raise ValueError("no training windows: use smaller blocks or a smaller window")
    give_memory_back()
    progress = _start(config, settings, seed, device)
    mark = {"seed": seed, "device": device.type} | asdict(config) | asdict(settings)
    if checkpoint is not None:
        mark |= _fingerprint(progress.model, windows, train, held_out)
    kept = Checkpoint(checkpoint, mark, minutes)
    kept.resume(progress)
    steps = range(progress.step + 1, settings.steps + 1)
    bar = {"desc": label, "initial": progress.step, "total": settings.steps, "leave": False}
    every = max(1, settings.steps // settings.reports)
    with _said_if_memory_is_short(config, settings, kept):
        windows, train = windows.to(device), torch.as_tensor(train)
        for step in tqdm(steps, **bar, disable=artefacts.quiet()):
            _step(progress, windows, train, settings, kept)
            if step % every == 0 or step == settings.steps:
                _report(progress, windows, held_out)
            kept.update(progress)
    kept.remove()
    history = pd.DataFrame(progress.rows, columns=["step", "loss", "held_out"])
    return progress.model.cpu().eval(), history


def _start(config: mae.MAEConfig, settings: PretrainSettings, seed: int, device) -> Progress:
    model = mae.build(config, seed).to(device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.rate, weight_decay=settings.weight_decay
    )
    schedule = _schedule(optimizer, settings.rate, settings.steps, settings.warmup)
    return Progress(model, optimizer, schedule, torch.Generator().manual_seed(seed))


def _fingerprint(
    model: nn.Module, windows: Windows, train: np.ndarray, held_out: np.ndarray
) -> dict:
    """Return what decides a training's result besides its settings."""
    places = (windows.region, windows.row, windows.col)
    return {
        "threads": torch.get_num_threads(),
        "mpm": __version__,
        "torch": torch.__version__,
        "weights at the start": digest(*model.state_dict().values()),
        "evidence": digest(windows.canvas, windows.seen),
        "training centres": digest(train, *(place[train] for place in places)),
        "held-out centres": digest(held_out, *(place[held_out] for place in places)),
    }


_NO_MEMORY = ("not enough memory", "out of memory", "allocate memory", "ALLOC_FAILED")


@contextmanager
def _said_if_memory_is_short(
    config: mae.MAEConfig, settings: PretrainSettings, kept: Checkpoint
) -> Iterator[None]:
    """Turn what PyTorch raises when memory runs out into a MemoryError that says what to do."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        short = isinstance(error, MemoryError) or any(text in str(error) for text in _NO_MEMORY)
        if not short:
            raise
        some = f", {settings.micro} at a time" if settings.micro else ""
        raise MemoryError(
            f"not enough memory for a batch of {settings.batch} windows{some}, each {config.window}"
            f" x {config.window} cells of {config.layers} layers: lower `batch`, or set `micro` to "
            f"fewer windows at a time, which gives the same result to rounding{kept}"
        ) from error


def _step(
    progress: Progress,
    windows: Windows,
    train: Tensor,
    settings: PretrainSettings,
    kept: Checkpoint,
) -> None:
    """Make one step of training, unless it would spoil the weights."""
    model, generator = progress.model, progress.generator
    index = train[torch.randint(len(train), (settings.batch,), generator=generator)]
    symmetry = _symmetry(generator) if settings.augment else 0
    mask = mae.draw_mask(len(index), model.config, generator)
    progress.optimizer.zero_grad()
    loss = _backward(model, windows, index, mask, symmetry, settings.micro)
    norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
    if not (torch.isfinite(loss) & torch.isfinite(norm)):
        raise FloatingPointError(
            f"loss is {loss.item()}, the norm of its gradient {norm.item()} at step "
            f"{progress.step + 1}: lower the rate ({settings.rate}) or look for extreme values in "
            f"the evidence layers{kept}"
        )
    progress.optimizer.step()
    progress.schedule.step()
    progress.step += 1
    progress.losses.append(loss)


def _backward(
    model: mae.MaskedAutoencoder,
    windows: Windows,
    index: Tensor,
    mask: Mask,
    symmetry: int,
    micro: int,
) -> Tensor:
    """Add the gradient of a batch's masked loss to the weights, and return the loss.

    With `micro` windows at a time both are running means over the cells that count, so that parts
    with many gaps weigh less.
    """
    loss, cells = 0.0, 0
    for part in torch.arange(len(index)).split(micro or len(index)):
        values, observed = _turned(*windows.gather(index[part]), symmetry)
        error, count = model.squared_error(values, observed, mask.part(part).to(values.device))
        before, cells = cells, cells + count
        share = before / cells.clamp(min=1)
        for weight in model.parameters():
            if weight.grad is not None:
                weight.grad *= share
        own = error / cells.clamp(min=1)
        own.backward()
        loss = loss * share + own.detach()
    return loss


def _report(progress: Progress, windows: Windows, held_out: np.ndarray) -> None:
    """Add a row to the history."""
    loss = torch.stack(progress.losses).mean().item()
    progress.rows.append([progress.step, loss, held_out_loss(progress.model, windows, held_out)])
    progress.losses = []


@torch.no_grad()
def held_out_loss(
    model: mae.MaskedAutoencoder,
    windows: Windows,
    index: np.ndarray,
    *,
    most: int = 256,
    seed: int = 0,
) -> float:
    """Return the masked loss on some windows, with masks that are the same at every call."""
    if len(index) == 0:
        return float("nan")
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(index, min(most, len(index)), replace=False))
    values, observed = windows.gather(chosen)
    training = model.training
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    mask = mae.draw_mask(len(values), model.config, generator).to(values.device)
    loss = model.loss(values, observed, mask)
    model.train(training)
    return loss.item()


def turn(values: Tensor, observed: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Flip and turn a whole batch (N, C, H, W) by one of the eight symmetries of the square."""
    return _turned(values, observed, _symmetry(generator))


def _symmetry(generator: torch.Generator) -> int:
    """Draw one of the eight symmetries of the square; 0 leaves windows as they are."""
    return torch.randint(8, (1,), generator=generator).item()


def _turned(values: Tensor, observed: Tensor, symmetry: int) -> tuple[Tensor, Tensor]:
    if symmetry == 0:
        return values, observed
    flip, quarters = divmod(symmetry, 4)
    values, observed = (torch.rot90(part, quarters, dims=(2, 3)) for part in (values, observed))
    return (values.flip(3), observed.flip(3)) if flip else (values, observed)


def _schedule(optimizer, rate: float, steps: int, warmup: float):
    # it rises for one step at least: with none the scheduler may divide by zero
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=rate,
        total_steps=steps + 1,
        pct_start=max(warmup, 2 / (steps + 1)),
        cycle_momentum=False,
    )
