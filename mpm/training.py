"""Pretraining: the masked autoencoder learns from unlabeled windows."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from mpm import artefacts, mae
from mpm.bars import tqdm
from mpm.batch_parts import AUTO, windows_at_a_time
from mpm.checkpoints import Checkpoint, Progress, fingerprint_of
from mpm.devices import check_same, fabric_on, set_up
from mpm.masking import Mask
from mpm.memory import enough_memory, give_memory_back
from mpm.threads import side_by_side
from mpm.windows import Windows

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from lightning.fabric.wrappers import _FabricModule

CHECKED = 20  # steps between two looks at a GPU's losses: each look waits for it


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
    micro: int = 0  # windows in memory at a time; 0: the whole batch, AUTO: what suits the device
    compile: bool = True  # on a GPU: `torch.compile` for the blocks, after a minute of compiling


PRETRAIN_PRESETS = {
    "paper": PretrainSettings(micro=AUTO),
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
    device: torch.device | str = "cpu",
    fabric: "Fabric | None" = None,
    label: str = "pretraining",
    checkpoint: Path | None = None,
    minutes: float = 5,
    start: mae.MaskedAutoencoder | None = None,
    keep: Callable[[mae.MaskedAutoencoder], None] | None = None,
) -> tuple[mae.MaskedAutoencoder, pd.DataFrame]:
    """Train a masked autoencoder on unlabeled windows.

    Parameters
    ----------
    config : MAEConfig
    windows : Windows
    train, held_out : array (n,) of int
        Centres to train on, and to report the loss on (nothing is chosen by it).
    settings : PretrainSettings
    seed : int
        Decides weights, batches, masks and turns.
    device : torch.device or str
        Where one process trains.
    fabric : Fabric, optional
        Of `devices.fabric_on`, for several processes: each calls this with the same arguments,
        takes its part of every batch, and gets what one process would, to rounding.
    label : str
        Name of the progress bar.
    checkpoint : Path, optional
        A file that keeps the progress while training. If the process is killed, the next call with
        the same arguments goes on from there and returns what an uninterrupted one would have, to
        the bit on the same machine. It is removed at the end, after `keep`. By default nothing is
        kept. Several processes must all see it.
    minutes : float
        Between two checkpoints.
    start : MaskedAutoencoder, optional
        Of the same `config`: its weights go on learning, instead of new ones of `seed`.
    keep : function, optional
        Called with the model at the end, to save it: the checkpoint is removed after that, so that
        a process which is killed between the two does not lose the training.

    Returns
    -------
    model : MaskedAutoencoder
        On the CPU, in evaluation mode.
    history : DataFrame
        step, loss (training, mean since the last report), held_out.

    Raises
    ------
    ValueError
        If there are no training windows, fewer windows in a batch than processes, or the processes
        see different checkpoints.
    FloatingPointError
        If the loss or its gradient is no longer finite; the last checkpoint stays.
    MemoryError
        If a batch does not fit; the last checkpoint stays.
    """
    fabric = fabric or fabric_on(device)
    if len(train) == 0:
        raise ValueError("no training windows: use smaller blocks or a smaller window")
    if settings.batch < fabric.world_size:
        raise ValueError(
            f"a batch of {settings.batch} windows cannot be shared by {fabric.world_size} "
            "processes: raise `batch` or use fewer devices"
        )
    give_memory_back()
    progress = _start(config, settings, seed, fabric, start)
    if settings.micro == AUTO:
        share = -(-settings.batch // fabric.world_size)
        micro = windows_at_a_time(config, share, fabric.device)
        settings = replace(settings, micro=micro)
    mark = {"seed": seed} | asdict(config) | asdict(settings)
    if checkpoint is not None:
        mark |= fingerprint_of(progress.model, fabric, windows, train, held_out)
    kept = Checkpoint(checkpoint, mark, minutes, writes=fabric.is_global_zero)
    kept.resume(progress)
    check_same(progress.step, fabric, f"step of {checkpoint}")
    with enough_memory("pretraining", windows, settings.batch, remedy=_remedy(settings), kept=kept):
        _train(
            progress, fabric, windows.to(fabric.device), (train, held_out), settings, kept, label
        )
    # without what wrapped it, and without compiled parts, which belong to the device
    model = mae.build(config, seed).eval()
    model.load_state_dict(progress.model.state_dict())
    if keep is not None:
        keep(model)
    kept.remove()
    return model, pd.DataFrame(progress.rows, columns=["step", "loss", "held_out"])


def _start(
    config: mae.MAEConfig,
    settings: PretrainSettings,
    seed: int,
    fabric: "Fabric",
    start: mae.MaskedAutoencoder | None,
) -> Progress:
    model = mae.build(config, seed)
    if start is not None:
        model.load_state_dict(start.state_dict())
    model = model.to(fabric.device).train()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.rate,
        weight_decay=settings.weight_decay,
        fused=fabric.device.type in ("cpu", "cuda"),  # one pass over the weights
    )
    schedule = _schedule(optimizer, settings.rate, settings.steps, settings.warmup)
    wrapped = set_up(model, fabric, methods=("squared_error", "loss"), compiled=settings.compile)
    return Progress(wrapped, optimizer, schedule, torch.Generator().manual_seed(seed))


def _remedy(settings: PretrainSettings) -> str:
    some = f"now {settings.micro}" if settings.micro else "now all"
    return (
        f"lower `batch`, or `micro`, the windows at a time ({some}), which gives the same result "
        "to rounding"
    )


def _train(
    progress: Progress,
    fabric: "Fabric",
    windows: Windows,
    centres: tuple[np.ndarray, np.ndarray],
    settings: PretrainSettings,
    kept: Checkpoint,
    label: str,
) -> None:
    """Make the steps that are left."""
    train, held_out = torch.as_tensor(centres[0]), centres[1]
    every = max(1, settings.steps // settings.reports)
    steps = range(progress.step + 1, settings.steps + 1)
    bar: dict[str, Any] = {
        "desc": label,
        "initial": progress.step,
        "total": settings.steps,
        "leave": False,
    }
    between = _between_looks(fabric.device)
    unseen: list[Tensor] = []
    for step in tqdm(steps, **bar, disable=artefacts.quiet() or not fabric.is_global_zero):
        reported = step % every == 0 or step == settings.steps
        looked = reported or step % between == 0
        _step(progress, fabric, windows, train, settings, kept, unseen, looked)
        if reported:
            with fabric.autocast():
                _report(progress, windows, held_out)
        if looked:  # a checkpoint holds no weights that are spoiled
            kept.update(progress)


def _step(
    progress: Progress,
    fabric: "Fabric",
    windows: Windows,
    train: Tensor,
    settings: PretrainSettings,
    kept: Checkpoint,
    unseen: list[Tensor],
    looked: bool,
) -> None:
    """Make one step of training, unless it is looked at and would spoil the weights."""
    unseen.append(_gradient(progress, fabric, windows, train, settings))
    if looked:
        _check_finite(unseen, progress.step + 1, settings, kept)
        unseen.clear()
    progress.optimizer.step()
    progress.schedule.step()
    progress.step += 1


def _between_looks(device: torch.device) -> int:
    """Return after how many steps losses are looked at: a CPU has them at hand."""
    return CHECKED if device.type == "cuda" else 1


def _check_finite(
    found: list[Tensor], step: int, settings: PretrainSettings, kept: Checkpoint
) -> None:
    """Look at the losses and gradient norms (2,) of the last steps, this one included."""
    for number, (loss, norm) in enumerate(torch.stack(found).tolist(), start=step - len(found) + 1):
        if not (np.isfinite(loss) and np.isfinite(norm)):
            raise FloatingPointError(
                f"loss is {loss}, the norm of its gradient {norm} at step {number}: lower the rate "
                f"({settings.rate}) or look for extreme values in the evidence layers{kept}"
            )


def _gradient(
    progress: Progress,
    fabric: "Fabric",
    windows: Windows,
    train: Tensor,
    settings: PretrainSettings,
) -> Tensor:
    """Take the gradient of one step: its loss, and its norm before it is clipped (2,).

    All processes draw the whole batch, so that their number changes nothing.
    """
    model, generator = progress.model, progress.generator
    index = train[torch.randint(len(train), (settings.batch,), generator=generator)]
    symmetry = _symmetry(generator) if settings.augment else 0
    mask = mae.draw_mask(len(index), model.config, generator)
    progress.optimizer.zero_grad()
    loss = _backward(model, fabric, windows, index, mask, symmetry, settings.micro)
    norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
    progress.losses.append(loss)
    return torch.stack([loss.float(), norm.float()])


def _backward(
    model: "_FabricModule",
    fabric: "Fabric",
    windows: Windows,
    index: Tensor,
    mask: Mask,
    symmetry: int,
    micro: int,
) -> Tensor:
    """Add the gradient of a batch's masked loss to the weights, and return the loss.

    Each process takes its share of the batch, `micro` windows at a time. Squared errors are summed
    and divided by the number of cells that count at the end, so that parts with many gaps weigh
    less.
    """
    share = torch.arange(len(index)).tensor_split(fabric.world_size)[fabric.global_rank]
    parts = share.split(micro or len(share))

    def squared_error(part: Tensor) -> tuple[Tensor, Tensor]:
        values, observed = _turned(*windows.gather(index[part]), symmetry)
        with fabric.autocast():
            return model.squared_error(values, observed, mask.part(part).to(values.device))

    if fabric.world_size == 1 and fabric.device.type == "cpu" and len(parts) > 1:
        error, cells = _side_by_side(list(model.parameters()), parts, squared_error)
    else:
        error, cells = torch.zeros(2, device=fabric.device)
        for number, part in enumerate(parts, start=1):
            # gradients are averaged over processes once, with the last part
            with fabric.no_backward_sync(model, enabled=number < len(parts)):
                own, count = squared_error(part)
                fabric.backward(own)
            error, cells = error + own.detach(), cells + count
    error, cells = fabric.all_reduce((error, cells), reduce_op="sum")
    cells = cells.clamp(min=1)
    share_of_a_cell = fabric.world_size / cells  # DDP has divided by the world's size
    for weight in model.parameters():
        if weight.grad is not None:
            weight.grad *= share_of_a_cell
    return error / cells


def _side_by_side(
    weights: list[nn.Parameter],
    parts: Sequence[Tensor],
    squared_error: Callable[[Tensor], tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor]:
    """Work on parts of a batch by one thread each; gradients are added in the order of the parts.

    Two threads on one small product wait for each other, and single cells take as long as products.
    """

    def gradient(part: Tensor) -> tuple[Tensor, Tensor, Sequence[Tensor | None]]:
        own, count = squared_error(part)
        return own.detach(), count, torch.autograd.grad(own, weights, allow_unused=True)

    error, cells = torch.zeros(2)
    for own, count, found in side_by_side(gradient, parts):
        error, cells = error + own, cells + count
        for weight, more in zip(weights, found, strict=True):
            if more is not None:
                weight.grad = more if weight.grad is None else weight.grad.add_(more)
    return error, cells


def _report(progress: Progress, windows: Windows, held_out: np.ndarray) -> None:
    """Add a row to the history."""
    loss = torch.stack(progress.losses).mean().item()
    progress.rows.append([progress.step, loss, held_out_loss(progress.model, windows, held_out)])
    progress.losses = []


@torch.no_grad()
def held_out_loss(
    model: "mae.MaskedAutoencoder | _FabricModule",
    windows: Windows,
    index: np.ndarray,
    *,
    most: int = 256,
    seed: int = 0,
) -> float:
    """Return the masked loss on some windows, with masks that are the same at every call.

    Parameters
    ----------
    model : MaskedAutoencoder
        Wrapped for training or not.
    windows : Windows
    index : array (n,) of int
        Centres.
    most : int
        Windows that are drawn of them.
    seed : int
    """
    if len(index) == 0:
        return float("nan")
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(index, min(most, len(index)), replace=False))
    values, observed = windows.gather(chosen)
    training = model.training
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    mask = mae.draw_mask(len(values), model.config, generator)
    loss = model.loss(values, observed, mask.to(values.device))
    model.train(training)
    return loss.item()


def turn(values: Tensor, observed: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Flip and turn a whole batch (N, C, H, W) by one of the eight symmetries of the square."""
    return _turned(values, observed, _symmetry(generator))


def _symmetry(generator: torch.Generator) -> int:
    """Draw one of the eight symmetries of the square; 0 leaves windows as they are."""
    return int(torch.randint(8, (1,), generator=generator))


def _turned(values: Tensor, observed: Tensor, symmetry: int) -> tuple[Tensor, Tensor]:
    if symmetry == 0:
        return values, observed
    flip, quarters = divmod(symmetry, 4)
    values, observed = (torch.rot90(part, quarters, dims=(2, 3)) for part in (values, observed))
    return (values.flip(3), observed.flip(3)) if flip else (values, observed)


def _schedule(
    optimizer: torch.optim.Optimizer, rate: float, steps: int, warmup: float
) -> torch.optim.lr_scheduler.OneCycleLR:
    # it rises for one step at least: with none the scheduler may divide by zero
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=rate,
        total_steps=steps + 1,
        pct_start=max(warmup, 2 / (steps + 1)),
        cycle_momentum=False,
    )
