"""Do explanations change when they should, and stay when they should?

They must change with the network's weights, and stay under small noise and other seeds.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from mpm import artefacts
from mpm.classifier import Classifier, classifier_path, load_classifier
from mpm.encoder import Encoder
from mpm.faithfulness import DRAWS, mean_interval, row_correlation
from mpm.fine_tuning import FINE_TUNE_PRESETS, fine_tune
from mpm.folds import Fold
from mpm.map_files import read_facts
from mpm.pu_selection import choose_negatives
from mpm.study import Study
from mpm.windows import Windows


def randomised(classifier: Classifier, *, seed: int) -> Iterator[tuple[str, Classifier]]:
    """Yield networks of which more and more layers' weights are shuffled, from the top.

    Parameters
    ----------
    classifier : Classifier
        Not changed.
    seed : int

    Yields
    ------
    str, Classifier
        Which part was shuffled last, and a network of its own. Every weight tensor keeps its
        values, in another order; the temperature stays.

    Source: Adebayo et al. 2018, arXiv:1810.03292, section 3.1 (cascading randomisation).
    """
    generator = torch.Generator().manual_seed(seed)
    model = deepcopy(classifier)
    encoder = model.encoder
    stages: dict[str, list[nn.Module]] = {"head": [model.linear], "last norm": [encoder.norm]}
    for number, block in reversed(list(enumerate(encoder.blocks, start=1))):
        stages[f"block {number}"] = [block]
    stages["patches"] = [encoder.values, encoder.missing]
    for name, parts in stages.items():
        for weight in (weight for part in parts for weight in part.parameters()):
            _shuffle(weight, generator)
        if name == "patches":
            for token in (encoder.position, encoder.cls):
                _shuffle(token, generator)
        yield name, deepcopy(model)


def randomisation(
    classifier: Classifier,
    values: pd.DataFrame,
    explain: Callable[[Classifier], pd.DataFrame],
    *,
    seed: int,
) -> pd.DataFrame:
    """Compare an explanation with those of networks whose weights are shuffled.

    Parameters
    ----------
    classifier : Classifier
    values : DataFrame (n, layers)
        The explanation of the network as it is.
    explain : function
        Network to contributions of the same cells.
    seed : int

    Returns
    -------
    DataFrame
        stage ("none", then those of `randomised`), value (mean rank correlation of the cells'
        contributions), low, high, and size, size_low, size_high: the same of their sizes, for an
        explanation whose signs alone have changed names the same layers as before.
    """
    rows = [("none", *[1.0] * 6)]
    for stage, model in randomised(classifier, seed=seed):
        found = explain(model)
        pairs = (values, found), (values.abs(), found.abs())
        rows.append((stage, *(part for pair in pairs for part in likeness(*pair, seed=seed))))
    columns = ["stage", "value", "low", "high", "size", "size_low", "size_high"]
    return pd.DataFrame(rows, columns=columns)


def likeness(one: pd.DataFrame, other: pd.DataFrame, *, seed: int) -> tuple[float, float, float]:
    """Return the mean rank correlation of two explanations of the same cells, and its interval."""
    pairs = row_correlation(one.to_numpy(), other[one.columns].to_numpy())
    return mean_interval(pairs, seed=seed)


def stability(
    one: pd.DataFrame, others: Sequence[pd.DataFrame], *, seed: int
) -> tuple[float, float, float]:
    """Return the mean rank correlation of an explanation with those of other networks.

    Parameters
    ----------
    one : DataFrame (n, layers)
    others : sequence of DataFrame (n, layers)
        Of the same cells, a network each.
    seed : int

    Returns
    -------
    value, low, high : float
        95 % interval when both networks and cells are drawn again. With few networks it is too
        narrow: three cannot show how different a tenth may be.
    """
    pairs = np.array([row_correlation(one.to_numpy(), each[one.columns].to_numpy())
                      for each in others])  # fmt: skip
    rng = np.random.default_rng(seed)
    networks, cells = pairs.shape
    with np.errstate(invalid="ignore"):
        drawn = [
            np.nanmean(
                pairs[rng.integers(networks, size=networks)][:, rng.integers(cells, size=cells)]
            )
            for _ in range(DRAWS)
        ]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(np.nanmean(pairs)), float(low), float(high)


def other_seeds(
    study: Study,
    target: str,
    fold: Fold,
    encoder: Encoder,
    positive: np.ndarray,
    *,
    preset: str,
    count: int,
    seed: int,
    device: torch.device,
) -> Iterator[Classifier]:
    """Yield final networks of other seeds: those behind the map, else trained here.

    Parameters
    ----------
    study, target
    fold : Fold
        The final one.
    encoder : Encoder
        The pretrained backbone.
    positive : array (n,) of bool
    preset : str
        Of the settings of training.
    count : int
    seed : int
        Of the first network, whose explanation is tested; not trained again.
    device : device
    """
    settings = FINE_TUNE_PRESETS[preset]
    drew = read_facts(study, target).get("model", [])  # else left by an earlier run
    for member in range(1, count + 1):
        folder = classifier_path(study, target, "final", 0, member=member)
        if folder.exists() and artefacts.sha256(folder / "model.safetensors") in drew:
            yield load_classifier(folder).classifier
            continue
        given: dict[str, Any] = {"seed": seed + member, "device": device}
        negatives = choose_negatives(fold, positive, settings, encoder=encoder, **given)
        known = fold.train[positive[fold.train]]
        parts = (fold.windows, known, negatives, fold.validation, positive)
        yield fine_tune(encoder, *parts, settings, **given)[0]


@torch.no_grad()
def _shuffle(weight: nn.Parameter, generator: torch.Generator) -> None:
    order = torch.randperm(weight.numel(), generator=generator)
    weight.copy_(weight.flatten()[order].view_as(weight))


def noisy(windows: Windows, binary: np.ndarray, *, scale: float, seed: int) -> Windows:
    """Add normal noise to observed evidence, but not to layers of zeros and ones.

    Parameters
    ----------
    windows : Windows
    binary : array (layers,) of bool
    scale : float
        Standard deviation, of a standardised layer's.
    seed : int
    """
    generator = torch.Generator().manual_seed(seed)
    noise = scale * torch.randn(windows.canvas.shape, generator=generator)
    moved = windows.seen & ~torch.as_tensor(np.asarray(binary, bool))[:, None, None]
    return replace(windows, canvas=windows.canvas + noise.where(moved, 0.0))
