"""Pretraining: the masked autoencoder learns from unlabeled windows."""

import ctypes
import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from mpm import artefacts, mae
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


PRETRAIN_PRESETS = {
    "paper": PretrainSettings(),
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
        If the loss is no longer finite.
    """
    if len(train) == 0:
        raise ValueError("no training windows: use smaller blocks or a smaller window")
    give_memory_back()
    model = mae.build(config, seed).to(device).train()
    windows = windows.to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.rate, weight_decay=settings.weight_decay
    )
    schedule = _schedule(optimizer, settings.rate, settings.steps, settings.warmup)
    generator = torch.Generator().manual_seed(seed)
    train = torch.as_tensor(train)
    every = max(1, settings.steps // settings.reports)
    rows, losses = [], []
    for step in tqdm(
        range(1, settings.steps + 1), desc=label, disable=artefacts.quiet(), leave=False
    ):
        index = train[torch.randint(len(train), (settings.batch,), generator=generator)]
        values, observed = windows.gather(index)
        if settings.augment:
            values, observed = turn(values, observed, generator)
        loss = _masked_loss(model, values, observed, generator)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"loss is {loss.item()} at step {step}: lower the rate ({settings.rate}) or look "
                "for extreme values in the evidence layers"
            )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        schedule.step()
        losses.append(loss.detach())
        if step % every == 0 or step == settings.steps:
            mean = torch.stack(losses).mean().item()
            rows.append((step, mean, held_out_loss(model, windows, held_out)))
            losses = []
    return model.cpu().eval(), pd.DataFrame(rows, columns=["step", "loss", "held_out"])


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
    loss = _masked_loss(model, values, observed, torch.Generator().manual_seed(seed))
    model.train(training)
    return loss.item()


def turn(values: Tensor, observed: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Flip and turn a whole batch (N, C, H, W) by one of the eight symmetries of the square."""
    flip, quarters = divmod(torch.randint(8, (1,), generator=generator).item(), 4)
    values, observed = (torch.rot90(part, quarters, dims=(2, 3)) for part in (values, observed))
    return (values.flip(3), observed.flip(3)) if flip else (values, observed)


def _masked_loss(model, values: Tensor, observed: Tensor, generator: torch.Generator) -> Tensor:
    config = model.config
    visible = mae.random_masking(len(values), config.tokens, config.mask_ratio, generator)
    return model.loss(values, observed, visible.to(values.device))


def _schedule(optimizer, rate: float, steps: int, warmup: float):
    # it rises for one step at least: with none the scheduler may divide by zero
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=rate,
        total_steps=steps + 1,
        pct_start=max(warmup, 2 / (steps + 1)),
        cycle_momentum=False,
    )
