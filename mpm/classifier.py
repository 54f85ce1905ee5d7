"""The classifier: an encoder with a small head, and how it is kept."""

from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mpm import artefacts, mae
from mpm.study import Study


class Classifier(nn.Module):
    """Encoder with a small head: dropout and one linear layer.

    Dropout sits in the head only, so uncertainty needs the backbone once a window.

    Attributes
    ----------
    temperature : Tensor
        Scalar that logits are divided by, fitted on validation cells.
    """

    temperature: Tensor

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
        names = self.view.split("+")
        places = {"cls": 0, "centre": 1 + self.encoder.config.tokens // 2}
        if "mean" not in names:  # the others need not be worked out
            only = [places[name] for name in names]
            return self.encoder(values, observed, only=only).flatten(1)
        tokens = self.encoder(values, observed)
        parts = {name: tokens[:, place] for name, place in places.items()}
        parts["mean"] = tokens[:, 1:].mean(dim=1)
        return torch.cat([parts[name] for name in names], dim=1)

    def forward(self, values: Tensor, observed: Tensor) -> Tensor:
        """Return the calibrated logit of windows (N, C, H, W): (N,)."""
        return self.head(self.features(values, observed))

    def head(self, features: Tensor) -> Tensor:
        """Return the calibrated logit of features (N, features): (N,)."""
        return self.linear(self.dropout(features)).squeeze(1) / self.temperature


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
    place = artefacts.require(folder / "model.json", "03_fine_tuning")
    content = mae.read_sizes(place, "view", "dropout", "threshold")
    with torch.random.fork_rng(devices=[]):  # first weights are random, and thrown away
        encoder = mae.Encoder(content["config"])
        model = Classifier(encoder, view=content["view"], dropout=content["dropout"])
    mae.load_weights(model, folder / "model.safetensors")
    return Fitted(model.eval(), content["threshold"], pd.read_csv(folder / "history.csv"))


def classifier_path(study: Study, target: str, split: str, fold: int, *, member: int = 0) -> Path:
    """Return where a fold's classifier lies, or another member of its ensemble.

    Parameters
    ----------
    study : Study
    target : str
    split, fold
        The split, and the number of its fold.
    member : int
        Of the ensemble, from 1; 0 is the network itself.
    """
    name = f"{split}_{fold}" + (f"_member_{member}" if member else "")
    return study.processed / target / "classifiers" / name


def drawing_paths(study: Study, target: str, facts: dict) -> list[Path]:
    """Return where the networks lie that drew a study's map, as the facts of the map count them."""
    count = facts.get("ensemble", 1)
    return [classifier_path(study, target, "final", 0, member=k) for k in range(count)]
