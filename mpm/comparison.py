"""Which pretext task teaches geology? Backbones compared by what a head makes of them."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
import xarray as xr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mpm import artefacts, fine_tuning, mae, masking, metrics, training
from mpm.checkpoints import digest
from mpm.folds import Fold, labels, make_fold
from mpm.scaling import apply_scaling, fit_scaling
from mpm.splits import SplitSettings, make_split
from mpm.study import Study
from mpm.windows import Windows, make_windows

SCORED = ("auc", "average_precision")
DRAWS = 300  # of the bootstrap over deposits
KEYS = ["study", "target", "split", "fold", "seed", "variant", "head"]
MOST = {"train": 4000, "validation": 3000, "test": 10_000}  # unlabeled cells that take part


@dataclass(frozen=True)
class Variant:
    """One way to make a backbone, told by what differs from the preset.

    Attributes
    ----------
    name : str
    config : dict
        Fields of `mae.MAEConfig`.
    settings : dict
        Fields of `training.PretrainSettings`.
    sees : {"network", "cell", "statistics"}
        What the probe is given: tokens of the network, or for comparison the layers of the cell
        itself, or these with mean and spread over the window.
    units : {"layer", "group"}
        What is hidden together, where the task hides layers.
    pretrained : bool
        False: random weights.
    per_region : bool
        Whether each region is standardised by itself; one without training cells by all of its
        cells, which takes no label.
    balanced : bool
        Whether regions give equal numbers of windows.
    aligned : bool
        Whether the probe standardises features region by region, likewise.
    """

    name: str
    config: dict = field(default_factory=dict)
    settings: dict = field(default_factory=dict)
    sees: Literal["network", "cell", "statistics"] = "network"
    units: Literal["layer", "group"] = "layer"
    pretrained: bool = True
    per_region: bool = False
    balanced: bool = False
    aligned: bool = False


def _masked(name: str, **config) -> Variant:
    return Variant(name, config)


VARIANTS = (
    Variant("the cell alone", sees="cell", pretrained=False),
    Variant("cell and window statistics", sees="statistics", pretrained=False),
    Variant("random network", pretrained=False),
    Variant("patches masked"),
    _masked("layers hidden", task="layers"),
    Variant("groups hidden", {"task": "layers"}, units="group"),
    _masked("patches and layers", task="both"),
    _masked("patches and layers, ratio 0.5", task="both", mask_ratio=0.5),
    _masked("patches of each layer apart", task="apart"),
    Variant("patches of each group apart", {"task": "apart"}, units="group"),
    _masked("mask ratio 0.5", mask_ratio=0.5),
    _masked("mask ratio 0.9", mask_ratio=0.9),
    _masked("mask ratio 0.95", mask_ratio=0.95),
    _masked("loss on all cells, as released", loss_on="all"),
    _masked("window of 9 cells", window=9),
    _masked("window of 21 cells", window=21),
    _masked("patches of 5 cells", patch=5),
    _masked("normalised targets", wanted="normalised"),
    _masked("high-pass targets", wanted="high_pass"),
    _masked("contrasts alone", inputs="contrasts"),
    _masked("values and contrasts", inputs="both"),
    _masked("both, values and contrasts", inputs="both", task="both"),
    Variant("standardised per region", per_region=True),
    Variant("features aligned", aligned=True),
    Variant("regions balanced", balanced=True),
)


def compare(
    study: Study,
    cubes: dict[str, xr.Dataset],
    variants: Sequence[Variant],
    runs: Sequence[tuple[str, int]],
    *,
    settings: SplitSettings,
    seeds: Sequence[int],
    heads: Sequence[str] = ("probe",),
    preset: str = "demo",
    steps: int = 0,
    without: tuple[str, str] | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[pd.DataFrame]:
    """Pretrain variants, put heads on them, and score held-out cells.

    Results are kept in `comparison_path`, and those that are there are not made again.

    Parameters
    ----------
    study : Study
    cubes : dict of Dataset
        By region.
    variants : sequence of Variant
    runs : sequence of (str, int)
        Splits and folds.
    settings : SplitSettings
        The dead zone must fit the widest window among the variants.
    seeds : sequence of int
        Each decides weights, batches and masks anew; folds stay.
    heads : sequence of str
        "probe": logistic regression on frozen features. "full", "last" or "frozen": fine-tuning,
        as `FineTuneSettings.train`.
    preset : str
    steps : int
        Of pretraining; 0: the preset's.
    without : (target, region), optional
        What is left out of training and scoring, to be looked at once at the end.
    device : device

    Yields
    ------
    DataFrame
        New rows: `KEYS`, metric, value, draws (list: the bootstrap over deposits, the same deposits
        in every variant, head and seed), prevalence, deposits, made_of.
    """
    for seed in seeds:
        for kind, number in runs:
            for variant in variants:
                steps_of = {"steps": steps} if steps else {}
                own = replace(variant, settings=steps_of | variant.settings)
                rows = _one(study, cubes, own, kind, number, settings, seed, heads, preset,
                            without, device)  # fmt: skip
                if len(rows):
                    keep(comparison_path(study), rows)
                    yield rows


def comparison_path(study: Study) -> Path:
    """Return where a study's comparison lies."""
    return study.processed / "comparison.parquet"


def keep(path: Path, rows: pd.DataFrame) -> None:
    """Put rows into a table of comparisons, in place of older ones of the same run."""
    if path.exists():
        old = pd.read_parquet(path)
        same = pd.MultiIndex.from_frame(old[KEYS]).isin(pd.MultiIndex.from_frame(rows[KEYS]))
        rows = pd.concat([old[~same], rows], ignore_index=True)
    artefacts.write_table(rows.sort_values([*KEYS, "metric"]).reset_index(drop=True), path)


def _one(study, cubes, variant, kind, number, settings, seed, heads, preset, without, device):
    config = replace(
        mae.preset(preset, next(iter(cubes.values())).sizes["layer"]),
        units=masking.units(next(iter(cubes.values())), variant.units),
        **variant.config,
    )
    fold = variant_fold(
        cubes, variant, kind, number, settings, config.window, targets=list(study.targets)
    )
    made_of = json.dumps(
        asdict(variant) | {"preset": preset, "without": without}
        | {"data": digest(fold.windows.canvas, fold.train, fold.test)}
    )  # fmt: skip
    keys = {"study": study.name, "split": kind, "fold": str(number), "seed": seed}
    wanted = [(target, head) for target in study.targets for head in heads]
    wanted = [
        (target, head)
        for target, head in wanted
        if (head == "probe" or variant.sees == "network")
        and not _known(comparison_path(study), keys | {"variant": variant.name, "target": target,
                                                       "head": head}, made_of)
    ]  # fmt: skip
    parts = {target: _parts(fold, cubes, target, without) for target, _ in wanted}
    wanted = [(target, head) for target, head in wanted if parts[target] is not None]
    if not wanted:
        return pd.DataFrame()
    encoder = backbone(fold, variant, config, preset, seed=seed, device=device).encoder
    rows = []
    for target, head in wanted:
        positive, deposit = labels(cubes, fold.windows, target)
        guess = score_cells(fold, encoder, variant, head, parts[target], positive, preset, seed)
        test = parts[target][2]
        made = metrics.Prediction(positive[test], guess, deposit[test], np.nan)
        drawn = metrics.draw_fold(f"{kind} {number}", made, (), DRAWS, 0)
        for metric in SCORED:
            rows.append(
                keys | {"variant": variant.name, "target": target, "head": head, "metric": metric}
                | {"value": drawn[metric][0], "draws": drawn[metric][1:].astype("float32")}
                | {"prevalence": positive[test].mean(), "deposits": int(drawn["deposits"][0])}
                | {"made_of": made_of}
            )  # fmt: skip
    return pd.DataFrame(rows)


def _known(path: Path, keys: dict, made_of: str) -> bool:
    if not path.exists():
        return False
    table = pd.read_parquet(path, columns=[*KEYS, "made_of"])
    here = table["made_of"] == made_of
    for name, value in keys.items():
        here &= table[name] == value
    return bool(here.any())


def variant_fold(
    cubes: dict[str, xr.Dataset],
    variant: Variant,
    kind: str,
    number: int,
    settings: SplitSettings,
    window: int,
    *,
    targets: Sequence[str],
) -> Fold:
    """Return a fold, standardised as the variant wants it."""
    fold = make_fold(cubes, kind, number, settings, window, targets=targets)
    if not variant.per_region:
        return fold
    parts = make_split(list(cubes.values()), kind, number, settings, targets=targets)
    scaled = []
    for cube, train in zip(cubes.values(), parts.train, strict=True):
        seen = train if train.any() else cube["valid"].values
        scaled.append(apply_scaling(cube, fit_scaling([cube], [seen])))
    return replace(fold, windows=make_windows(scaled, window))


def backbone(
    fold: Fold,
    variant: Variant,
    config: mae.MAEConfig,
    preset: str,
    *,
    seed: int,
    device: torch.device | str,
) -> mae.MaskedAutoencoder:
    """Pretrain a variant's backbone on a fold's training windows, or leave its weights random."""
    if not variant.pretrained:
        return mae.build(config, seed).eval()
    settings = replace(training.PRETRAIN_PRESETS[preset], reports=1, **variant.settings)
    train = fold.train
    if variant.balanced:
        region = fold.windows.region[train]
        counts = np.bincount(region)
        train = np.repeat(train, np.round(counts.max() / counts[region]).astype(int))
    model, _ = training.pretrain(
        config, fold.windows, train, train[:0], settings, seed=seed, device=torch.device(device),
        label=variant.name,
    )  # fmt: skip
    return model


def _parts(fold: Fold, cubes: dict, target: str, without) -> list[np.ndarray] | None:
    """Training, validation and test centres: all positive ones, and a sample of the others."""
    positive, _ = labels(cubes, fold.windows, target)
    rng = np.random.default_rng(0)
    parts = []
    for name, most in MOST.items():
        index = getattr(fold, name)
        if without is not None and without[0] == target:
            index = index[fold.windows.region[index] != list(cubes).index(without[1])]
        known, others = index[positive[index]], index[~positive[index]]
        if len(known) == 0 or len(others) == 0:
            return None
        drawn = rng.choice(others, min(most, len(others)), replace=False)
        parts.append(np.sort(np.concatenate([known, drawn])))
    return parts


def score_cells(
    fold: Fold,
    encoder: mae.Encoder,
    variant: Variant,
    head: str,
    parts: Sequence[np.ndarray],
    positive: np.ndarray,
    preset: str,
    seed: int,
) -> np.ndarray:
    """Put a head on an encoder, train it on the first part, choose by the second, score the third.

    Returns
    -------
    array (n,)
        Higher where a deposit is likelier, for the centres of the third part.
    """
    if head == "probe":
        seen = [features(encoder, variant, fold.windows, index) for index in parts]
        if variant.aligned:
            seen = _align(seen, [fold.windows.region[index] for index in parts])
        return _probe(seen, [positive[index] for index in parts])
    settings = replace(fine_tuning.FINE_TUNE_PRESETS[preset], train=head)
    settings = replace(settings, augment=settings.augment and head != "frozen")
    known = fold.train[positive[fold.train]]
    known = np.intersect1d(known, parts[0])
    trained = replace(fold, train=np.union1d(known, fold.train[~positive[fold.train]]))
    negatives = fine_tuning.choose_negatives(
        trained, positive, settings, seed=seed, encoder=encoder
    )
    model, _ = fine_tuning.fine_tune(
        encoder, fold.windows, known, negatives, parts[1], positive, settings, seed=seed,
        device=torch.device("cpu"),
    )  # fmt: skip
    with torch.no_grad():
        logits = [model(*part) for part in fold.windows.batches(parts[2], 256)]
    return torch.cat(logits).numpy()


@torch.no_grad()
def features(
    encoder: mae.Encoder, variant: Variant, windows: Windows, index: np.ndarray
) -> np.ndarray:
    """Return what the probe sees of windows: (n, features) float32."""
    if variant.sees == "cell":
        return np.nan_to_num(windows.centres(index))
    if variant.sees == "statistics":
        return np.concatenate([_statistics(*part) for part in windows.batches(index, 1024)])
    model = fine_tuning.Classifier(encoder).eval()
    return torch.cat([model.features(*part) for part in windows.batches(index, 256)]).numpy()


def _statistics(values: torch.Tensor, observed: torch.Tensor) -> np.ndarray:
    count = observed.sum(dim=(2, 3)).clamp(min=1)
    mean = values.sum(dim=(2, 3)) / count
    away = (values - mean[..., None, None]).where(observed, 0.0)
    spread = (away.square().sum(dim=(2, 3)) / count).sqrt()
    half = values.shape[2] // 2
    return torch.cat([values[:, :, half, half], mean, spread], dim=1).numpy()


def _align(seen: list[np.ndarray], regions: list[np.ndarray]) -> list[np.ndarray]:
    """Standardise features by all cells of their region that take part; no label is read."""
    made = [np.empty_like(part) for part in seen]
    for number in np.unique(np.concatenate(regions)):
        here = [region == number for region in regions]
        all_of_it = np.concatenate([part[own] for part, own in zip(seen, here, strict=True)])
        mean, spread = all_of_it.mean(axis=0), all_of_it.std(axis=0) + 1e-6
        for out, part, own in zip(made, seen, here, strict=True):
            out[own] = (part[own] - mean) / spread
    return made


def _probe(seen: list[np.ndarray], known: list[np.ndarray]) -> np.ndarray:
    """Logistic regression, its penalty chosen by the average precision on validation cells."""
    best, kept = -1.0, None
    for strength in (1e-4, 1e-3, 1e-2, 1e-1):
        model = make_pipeline(
            StandardScaler(),
            LogisticRegression(C=strength, class_weight="balanced", max_iter=300),
        ).fit(seen[0], known[0])
        score = average_precision_score(known[1], model.decision_function(seen[1]))
        if score > best:
            best, kept = score, model
    return kept.decision_function(seen[2])


def summary(table: pd.DataFrame, control: tuple[str, str], *, seed: int = 0) -> pd.DataFrame:
    """Average over folds and seeds, with 95 % intervals over deposits and seeds.

    Parameters
    ----------
    table : DataFrame
        Of `compare`.
    control : (variant, head)
        What all others are compared with, on the same deposits.
    seed : int
        Of the draws of seeds.

    Returns
    -------
    DataFrame
        study, target, split, metric, variant, head, folds, seeds, deposits, prevalence, value, low,
        high, difference, difference_low, difference_high.
    """
    rows = []
    for keys, part in table.groupby(["study", "target", "split", "metric"], sort=False):
        drawn = {
            way: _draws(own, np.random.default_rng(seed))
            for way, own in part.groupby(["variant", "head"], sort=False)
        }
        for (variant, head), values in drawn.items():
            own = part[(part["variant"] == variant) & (part["head"] == head)]
            one = own.drop_duplicates("fold")
            row = [*keys, variant, head, len(one), own["seed"].nunique(), one["deposits"].sum(),
                   own["prevalence"].mean(), *_interval(values)]  # fmt: skip
            other = drawn.get(control)
            row += _interval(values - other) if other is not None else [np.nan] * 3
            rows.append(row)
    names = ["study", "target", "split", "metric", "variant", "head", "folds", "seeds", "deposits"]
    names += ["prevalence", "value", "low", "high"]
    names += ["difference", "difference_low", "difference_high"]
    return pd.DataFrame(rows, columns=names)


def _draws(rows: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Mean over folds of the value and its draws, each draw with other seeds: (1 + draws,)."""
    values = []
    for _, fold in rows.groupby("fold", sort=True):
        plain, drawn = fold["value"].to_numpy(), np.stack(fold["draws"].to_list())
        chosen = rng.integers(len(fold), size=(len(fold), drawn.shape[1]))
        several = np.take_along_axis(drawn, chosen, axis=0).mean(axis=0)
        values.append(np.concatenate([[plain.mean()], several]))
    return np.mean(values, axis=0)


def _interval(values: np.ndarray) -> list[float]:
    low, high = np.nanpercentile(values[1:], [2.5, 97.5])
    return [float(values[0]), float(low), float(high)]
