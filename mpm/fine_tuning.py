"""Fine-tuning: a classifier on the backbone learns from few deposits and likely negatives."""

from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize_scalar
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from mpm import artefacts, mae
from mpm.bars import tqdm
from mpm.classifier import Classifier
from mpm.labels import sample_cells
from mpm.memory import enough_memory, give_memory_back
from mpm.training import turn
from mpm.windows import Windows

TEMPERATURES = (0.05, 20.0)  # between which one is sought
LOOKED = 1000  # unlabeled validation cells that early stopping and the temperature see


@dataclass(frozen=True)
class FineTuneSettings:
    """How the classifier is trained.

    Dropout 0.6, label smoothing 0.3, a head on the CLS token, and 20 negatives a positive, from the
    quarter of the cells that is least like deposits, are those of the released configuration of
    Daruna et al. 2024, arXiv:2406.12756.
    """

    steps: int = 2000
    batch: int = 64  # windows a step, half of them positive (oversampled)
    rate: float = 1e-3  # of the head
    backbone_rate: float = 1e-4  # of the trained blocks
    weight_decay: float = 0.01
    clip: float = 1.0
    dropout: float = 0.6
    smoothing: float = 0.3
    train: Literal["frozen", "last", "full"] = "full"
    view: str = "cls"  # what the head sees of the tokens
    negatives: Literal["likely", "random"] = "likely"
    negatives_by: Literal["cells", "backbone"] = "cells"  # features that likely ones are told by
    quantiles: tuple[float, float] = (0.75, 1.0)  # of summed distance, for likely negatives
    per_positive: int = 20
    augment: bool = True
    every: int = 25  # steps between looks at the validation cells
    patience: int = 8  # looks without a better average precision before it stops

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            known, value = get_args(hint), getattr(self, name)
            if get_origin(hint) is Literal and value not in known:
                raise ValueError(f"{name} {value!r} is none of {', '.join(known)}")


FINE_TUNE_PRESETS = {
    "paper": FineTuneSettings(),
    # sees more and learns from nearer ground than published, which pays: notebook 03, section 5
    "demo": FineTuneSettings(
        steps=240,
        backbone_rate=1e-3,
        every=20,
        patience=3,
        view="cls+mean+centre",
        quantiles=(0.25, 1.0),
    ),
}


def fine_tune(
    encoder: mae.Encoder,
    windows: Windows,
    positives: np.ndarray,
    negatives: np.ndarray,
    validation: np.ndarray,
    labels: np.ndarray,
    settings: FineTuneSettings,
    *,
    seed: int,
    device: torch.device,
    label: str = "fine-tuning",
) -> tuple[Classifier, pd.DataFrame]:
    """Train a classifier on known deposits and likely negatives.

    Parameters
    ----------
    encoder : Encoder
        Copied, not changed.
    windows : Windows
    positives, negatives : array (n,) of int
        Training centres.
    validation : array (n,) of int
        Centres on which the best step and the temperature are chosen.
    labels : array (n,) of bool
        Positive cells among all centres; only those of `validation` are read.
    settings : FineTuneSettings
    seed : int
    device : torch.device
    label : str
        Name of the progress bar.

    Returns
    -------
    classifier : Classifier
        In evaluation mode, on the CPU.
    history : DataFrame
        step, loss, average_precision (validation). Its attribute "limited" is true if no
        temperature between `TEMPERATURES` was the best: above, the validation cells do not bear the
        scores out at all, and would have them all alike.

    Raises
    ------
    ValueError
        If there are no positives or no negatives among the training or the validation cells, or
        one training positive only.
    FloatingPointError
        If the loss or a likelihood is no longer finite.
    MemoryError
        If a batch does not fit.
    """
    _check_parts(positives, negatives, labels[validation])
    give_memory_back()  # else a notebook grows with every fold
    model = _classifier(encoder, settings, seed).to(device)
    windows = windows.to(device)
    looked, _ = sample_cells(validation, labels, LOOKED, seed=seed)
    pools = [torch.as_tensor(pool) for pool in (positives, negatives)]
    with enough_memory("fine-tuning", windows, settings.batch):
        history = _train(model, windows, pools, looked, labels, settings, seed, label)
        history.attrs["limited"] = _fit_temperature(model, windows, looked, labels)
    return model.cpu(), history


def _classifier(encoder: mae.Encoder, settings: FineTuneSettings, seed: int) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        copy = type(encoder)(encoder.config)
        copy.load_state_dict(encoder.state_dict())
        model = Classifier(copy, view=settings.view, dropout=settings.dropout)
    if settings.train != "full":
        copy.requires_grad_(False)
    if settings.train == "last":
        copy.blocks[-1].requires_grad_(True)
        copy.norm.requires_grad_(True)
    return model


def _optimizer(model: Classifier, settings: FineTuneSettings) -> torch.optim.Optimizer:
    trained = [weight for weight in model.encoder.parameters() if weight.requires_grad]
    groups = [{"params": model.linear.parameters(), "lr": settings.rate}]
    if trained:
        groups.append({"params": trained, "lr": settings.backbone_rate})
    return torch.optim.AdamW(groups, weight_decay=settings.weight_decay)


def _check_parts(positives: np.ndarray, negatives: np.ndarray, truth: np.ndarray) -> None:
    for what, count in {
        "training positives": len(positives),
        "negatives": len(negatives),
        "positive validation cells": truth.sum(),
        "negative validation cells": (~truth).sum(),
    }.items():
        if count == 0:
            raise ValueError(f"no {what}: use larger blocks, fewer folds or another split seed")
    if len(positives) == 1:
        raise ValueError(
            "only one training positive, which nothing can be learned from: use a larger target "
            "radius, more deposit types, fewer folds or another split seed"
        )


def _train(
    model: Classifier,
    windows: Windows,
    pools: list[Tensor],
    looked: np.ndarray,
    labels: np.ndarray,
    settings: FineTuneSettings,
    seed: int,
    label: str,
) -> pd.DataFrame:
    """Train until it gets no better; the model is left in evaluation mode with its best weights."""
    optimizer = _optimizer(model, settings)
    generator = torch.Generator().manual_seed(seed)
    judge = partial(_likelihood, model, windows, looked)
    if settings.train == "frozen":  # features stay what they are: the backbone runs once a cell
        seen = features_of(model, windows, looked)
        judge = partial(_head_likelihood, model, seen)
        if not settings.augment:
            pools = [features_of(model, windows, pool) for pool in pools]
    best, waited, kept, rows, losses = -1.0, 0, _copy(model), [], []
    for step in tqdm(
        range(1, settings.steps + 1), desc=label, disable=artefacts.quiet(), leave=False
    ):
        losses.append(_tune_step(model, optimizer, windows, pools, settings, generator))
        if step % settings.every and step < settings.steps:
            continue
        loss, likelihood = _mean_loss(losses, step, settings), judge()
        _check_finite(likelihood.sum(), "the likelihood of validation cells", step, settings)
        score = average_precision_score(labels[looked], likelihood)
        rows.append((step, loss, score))
        losses = []
        best, waited, kept = (score, 0, _copy(model)) if score > best else (best, waited + 1, kept)
        if waited == settings.patience:
            break
    model.load_state_dict(kept)
    model.eval()
    return pd.DataFrame(rows, columns=["step", "loss", "average_precision"])


def _tune_step(
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    windows: Windows,
    pools: list[Tensor],
    settings: FineTuneSettings,
    generator: torch.Generator,
) -> Tensor:
    model.train()
    half, device = settings.batch // 2, windows.canvas.device
    # of centres, or of features where these are known
    drawn = torch.cat(
        [pool[torch.randint(len(pool), (half,), generator=generator)] for pool in pools]
    )
    features = drawn if drawn.ndim == 2 else _see(model, windows, drawn, settings, generator)
    wanted = torch.cat([torch.ones(half), torch.zeros(half)]).to(device)
    wanted = wanted * (1 - settings.smoothing) + settings.smoothing / 2
    # the masks of the dropout come from our generator: nothing depends on global state
    kept = torch.rand(features.shape, generator=generator) >= settings.dropout
    features = features * kept.to(device) / (1 - settings.dropout)
    loss = binary_cross_entropy_with_logits(model.linear(features).squeeze(1), wanted)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
    optimizer.step()
    return loss.detach()


def _see(
    model: Classifier,
    windows: Windows,
    index: Tensor,
    settings: FineTuneSettings,
    generator: torch.Generator,
) -> Tensor:
    """Return the features of centres, their windows turned if the settings say so."""
    values, observed = windows.gather(index)
    if settings.augment:
        values, observed = turn(values, observed, generator)
    return model.features(values, observed)


def _mean_loss(losses: list[Tensor], step: int, settings: FineTuneSettings) -> float:
    """Average the losses of the last steps, which are looked at together: a GPU need not wait."""
    for k, loss in enumerate(torch.stack(losses).tolist(), start=step - len(losses) + 1):
        _check_finite(loss, "the loss", k, settings)
    return torch.stack(losses).mean().item()


def _check_finite(value: float, what: str, step: int, settings: FineTuneSettings) -> None:
    if not np.isfinite(value):
        raise FloatingPointError(
            f"{what} is {value} at step {step} of fine-tuning: lower the rates (head "
            f"{settings.rate:g}, backbone {settings.backbone_rate:g}) or look for extreme values "
            "in the evidence layers"
        )


@torch.no_grad()
def features_of(model: Classifier, windows: Windows, index: np.ndarray | Tensor) -> Tensor:
    """Return what the head sees of centres, nothing dropped: (n, features)."""
    model.eval()
    return torch.cat(list(windows.map(model.features, index, 256)))


@torch.no_grad()
def _head_likelihood(model: Classifier, features: Tensor) -> np.ndarray:
    model.eval()
    return model.head(features).sigmoid().cpu().numpy()


@torch.no_grad()
def _likelihood(
    model: Classifier, windows: Windows, index: np.ndarray, batch: int = 256
) -> np.ndarray:
    model.eval()
    return torch.cat(list(windows.map(model, index, batch))).sigmoid().cpu().numpy()


def _fit_temperature(
    model: Classifier, windows: Windows, index: np.ndarray, labels: np.ndarray
) -> bool:
    """Fit the temperature by the log loss of both classes, and say whether it met its limits.

    Both classes have equal weight.

    So a likelihood is the probability at even odds, not that of finding a deposit: the number of
    undiscovered deposits is unknown in positive-unlabeled data.

    A few validation cells are easily told apart without an error, and the best temperature were 0:
    every likelihood 0 or 1, and no rank left among the high ones. So the wanted likelihoods are not
    1 and 0 but (n + 1) / (n + 2) and 1 / (n + 2), n being the cells of the class.

    Source of these: Platt 1999, "Probabilistic outputs for support vector machines".
    """
    likelihood = _likelihood(model, windows, index).clip(1e-6, 1 - 1e-6)
    logit, positive = np.log(likelihood / (1 - likelihood)), labels[index]
    wanted = np.where(positive, 1 - 1 / (positive.sum() + 2), 1 / ((~positive).sum() + 2))

    def loss(log_temperature: float) -> float:
        scaled = logit / np.exp(log_temperature)
        cost = np.logaddexp(0, scaled) - wanted * scaled  # log loss of each cell
        return cost[positive].mean() + cost[~positive].mean()

    ends = np.log(TEMPERATURES)
    best = minimize_scalar(loss, bounds=ends, method="bounded").x
    nearest = ends[np.argmin(np.abs(ends - best))]
    limited = bool(abs(nearest - best) < 0.01)  # the search ends just short of a limit
    model.temperature.fill_(float(np.exp(nearest if limited else best)))
    return limited


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}
