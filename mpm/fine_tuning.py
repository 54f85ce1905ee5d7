"""Fine-tuning: a classifier on the backbone learns from few deposits and likely negatives."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from scipy.optimize import minimize_scalar
from sklearn.metrics import average_precision_score
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm.auto import tqdm

from mpm import artefacts, mae
from mpm.folds import Fold
from mpm.labels import likely_negatives
from mpm.study import Study
from mpm.training import give_memory_back, turn
from mpm.windows import Windows


class Classifier(nn.Module):
    """Encoder with a small head: dropout and one linear layer.

    Dropout sits in the head only, so uncertainty needs the backbone once a window.

    Attributes
    ----------
    temperature : Tensor
        Scalar that logits are divided by, fitted on validation cells.
    """

    def __init__(
        self, encoder: mae.Encoder, *, view: str = "cls+mean+centre", dropout: float = 0.6
    ):
        super().__init__()
        self.encoder, self.view = encoder, view
        unknown = set(view.split("+")) - {"cls", "mean", "centre"}
        if unknown:
            raise ValueError(f"view {view!r}: {', '.join(unknown)} is none of cls, mean, centre")
        width = encoder.config.width * len(view.split("+"))
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, 1)
        self.register_buffer("temperature", torch.ones(()))

    def features(self, values: Tensor, observed: Tensor) -> Tensor:
        """Return what the head sees of windows (N, C, H, W): (N, features)."""
        tokens = self.encoder(values, observed)
        parts = {
            "cls": tokens[:, 0],
            "mean": tokens[:, 1:].mean(dim=1),
            "centre": tokens[:, 1 + self.encoder.config.tokens // 2],
        }
        return torch.cat([parts[name] for name in self.view.split("+")], dim=1)

    def forward(self, values: Tensor, observed: Tensor) -> Tensor:
        """Return the calibrated logit of windows (N, C, H, W): (N,)."""
        return self.head(self.features(values, observed))

    def head(self, features: Tensor) -> Tensor:
        """Return the calibrated logit of features (N, features): (N,)."""
        return self.linear(self.dropout(features)).squeeze(1) / self.temperature


@dataclass(frozen=True)
class FineTuneSettings:
    """How the classifier is trained.

    Dropout 0.6, label smoothing 0.3 and 20 negatives a positive are those of the released
    configuration of Daruna et al. 2024, arXiv:2406.12756.
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
    view: str = "cls+mean+centre"  # what the head sees of the tokens
    negatives: Literal["likely", "random"] = "likely"
    quantiles: tuple[float, float] = (0.25, 1.0)  # of summed distance, for likely negatives
    per_positive: int = 20
    augment: bool = True
    every: int = 25  # steps between looks at the validation cells
    patience: int = 8  # looks without a better average precision before it stops


FINE_TUNE_PRESETS = {
    "paper": FineTuneSettings(),
    "demo": FineTuneSettings(steps=350, backbone_rate=1e-3, every=35),
}


@dataclass
class Fitted:
    """A trained classifier with what was chosen on validation cells.

    Attributes
    ----------
    classifier : Classifier
        In evaluation mode, on the CPU.
    threshold : float
        Likelihood from which a cell is called prospective: best F1 on validation cells.
    history : DataFrame
        step, loss, average_precision (validation).
    """

    classifier: Classifier
    threshold: float
    history: pd.DataFrame


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
    positives, negatives : array of int
        Training centres.
    validation : array of int
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
        step, loss, average_precision (validation).

    Raises
    ------
    ValueError
        If there are no positives or no negatives among the training or the validation cells.
    """
    for what, count in {
        "training positives": len(positives),
        "negatives": len(negatives),
        "positive validation cells": labels[validation].sum(),
        "negative validation cells": (~labels[validation]).sum(),
    }.items():
        if count == 0:
            raise ValueError(f"no {what}: use larger blocks, fewer folds or another split seed")
    give_memory_back()  # else a notebook grows with every fold
    model = _classifier(encoder, settings, seed).to(device)
    windows = windows.to(device)
    optimizer = _optimizer(model, settings)
    generator = torch.Generator().manual_seed(seed)
    looked = _sample_validation(validation, labels, seed)
    pools = [torch.as_tensor(pool) for pool in (positives, negatives)]
    best, waited, kept, rows, losses = -1.0, 0, _copy(model), [], []
    for step in tqdm(
        range(1, settings.steps + 1), desc=label, disable=artefacts.quiet(), leave=False
    ):
        losses.append(_tune_step(model, optimizer, windows, pools, settings, generator, device))
        if step % settings.every and step < settings.steps:
            continue
        likelihood = _likelihood(model, windows, looked)
        score = average_precision_score(labels[looked], likelihood)
        rows.append((step, torch.stack(losses).mean().item(), score))
        losses = []
        best, waited, kept = (score, 0, _copy(model)) if score > best else (best, waited + 1, kept)
        if waited == settings.patience:
            break
    model.load_state_dict(kept)
    model.eval()
    _fit_temperature(model, windows, looked, labels)
    return model.cpu(), pd.DataFrame(rows, columns=["step", "loss", "average_precision"])


@torch.no_grad()
def embed(
    encoder: mae.Encoder, windows: Windows, index: np.ndarray, *, batch: int = 256
) -> np.ndarray:
    """Return the mean token of windows: (n, width) float32, the backbone's feature of a cell."""
    parts = [encoder(*part)[:, 1:].mean(dim=1) for part in windows.batches(index, batch)]
    return torch.cat(parts).cpu().numpy()


def save_classifier(fitted: Fitted, folder: Path, *, facts: dict) -> None:
    """Save a classifier as safetensors and JSON; `facts` say where it comes from."""
    model = fitted.classifier
    content = {
        "config": asdict(model.encoder.config),
        "view": model.view,
        "dropout": model.dropout.p,
        "threshold": fitted.threshold,
        "facts": facts,
    }
    with artefacts.atomic(folder) as fresh:
        fresh.mkdir()
        save_file(model.state_dict(), fresh / "model.safetensors")
        artefacts.write_json(fresh / "model.json", content)
        fitted.history.to_csv(fresh / "history.csv", index=False)


def load_classifier(folder: Path) -> Fitted:
    """Load a classifier saved by `save_classifier`.

    Raises
    ------
    FileNotFoundError
        If it is missing; says which notebook to run.
    ValueError
        If the weights are damaged or do not fit.
    """
    content = artefacts.read_json(artefacts.require(folder / "model.json", "03_fine_tuning"))
    with torch.random.fork_rng(devices=[]):  # first weights are random, and thrown away
        encoder = mae.Encoder(mae.MAEConfig(**content["config"]))
        model = Classifier(encoder, view=content["view"], dropout=content["dropout"])
    mae.load_weights(model, folder / "model.safetensors")
    return Fitted(model.eval(), content["threshold"], pd.read_csv(folder / "history.csv"))


def _classifier(encoder: mae.Encoder, settings: FineTuneSettings, seed: int) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        copy = mae.Encoder(encoder.config)
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


def _tune_step(model, optimizer, windows, pools, settings, generator, device) -> Tensor:
    model.train()
    half = settings.batch // 2
    draws = [pool[torch.randint(len(pool), (half,), generator=generator)] for pool in pools]
    values, observed = windows.gather(torch.cat(draws))
    if settings.augment:
        values, observed = turn(values, observed, generator)
    wanted = torch.cat([torch.ones(half), torch.zeros(half)]).to(device)
    wanted = wanted * (1 - settings.smoothing) + settings.smoothing / 2
    features = model.features(values, observed)
    # the masks of the dropout come from our generator: nothing depends on global state
    kept = torch.rand(features.shape, generator=generator) >= settings.dropout
    features = features * kept.to(device) / (1 - settings.dropout)
    loss = binary_cross_entropy_with_logits(model.linear(features).squeeze(1), wanted)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
    optimizer.step()
    return loss.detach()


@torch.no_grad()
def _likelihood(
    model: Classifier, windows: Windows, index: np.ndarray, batch: int = 256
) -> np.ndarray:
    model.eval()
    parts = [model(*part) for part in windows.batches(index, batch)]
    return torch.cat(parts).sigmoid().cpu().numpy()


def _sample_validation(validation: np.ndarray, labels: np.ndarray, seed: int, most: int = 1000):
    """All positive validation centres and some of the others: enough to rank, cheap to look at."""
    positive, other = validation[labels[validation]], validation[~labels[validation]]
    some = np.random.default_rng(seed).choice(other, min(most, len(other)), replace=False)
    return np.sort(np.concatenate([positive, some]))


def _fit_temperature(model: Classifier, windows: Windows, index: np.ndarray, labels: np.ndarray):
    """Fit the temperature by the log loss of both classes at equal weight.

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

    best = minimize_scalar(loss, bounds=(-3, 3), method="bounded")
    model.temperature.fill_(float(np.exp(best.x)))


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def classifier_path(study: Study, target: str, split: str, fold: int) -> Path:
    """Return where a fold's classifier lies."""
    return study.processed / target / "classifiers" / f"{split}_{fold}"


def choose_negatives(
    fold: Fold, positive: np.ndarray, settings: FineTuneSettings, *, seed: int
) -> np.ndarray:
    """Draw negatives from a fold's unlabeled training centres, as the settings say."""
    known, unlabeled = fold.train[positive[fold.train]], fold.train[~positive[fold.train]]
    quantiles = settings.quantiles if settings.negatives == "likely" else (0.0, 1.0)
    count = settings.per_positive * len(known)
    features = fold.windows.centres()
    return likely_negatives(features, known, unlabeled, quantiles=quantiles, count=count, seed=seed)
