"""Which pretext task teaches geology? Backbones compared by what a head makes of them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet
import torch
import xarray as xr

from mpm import (
    artefacts,
    comparison_table,
    datacube,
    fingerprints,
    mae,
    masking,
    metrics,
    probes,
    training,
)
from mpm.checkpoints import digest
from mpm.devices import device_of
from mpm.folds import Fold, labels, make_fold
from mpm.pretraining import split_settings
from mpm.scaling import apply_scaling, fit_scaling
from mpm.splits import SplitSettings, auto_block_km, make_split
from mpm.study import Study
from mpm.variants import VARIANTS, Variant, asked, widest_window
from mpm.windows import make_windows

SCORED = ("auc", "average_precision")
DRAWS = 300  # of the bootstrap over deposits
KEYS = ["study", "target", "split", "fold", "seed", "variant", "head", "choice"]
MOST = {"train": 4000, "validation": 3000, "test": 10_000}  # unlabeled cells that take part


@dataclass(frozen=True)
class Plan:
    """What is run of a comparison.

    Attributes
    ----------
    variants : tuple of Variant
    runs : tuple of (str, int)
        Splits and folds.
    seeds : tuple of int
        Each decides weights, batches and masks anew; folds stay.
    heads : tuple of str
        "probe": logistic regression on frozen features. "full", "last" or "frozen": fine-tuning,
        as `FineTuneSettings.train`.
    choices : tuple of str
        Names of `probes.CHOICES`: how what is fine-tuned is trained; a probe knows the first alone.
    targets : tuple of str
        All of the study's by default.
    preset : str
    steps : int
        Of pretraining; 0: the preset's.
    without : (target, region), optional
        What is left out of training and scoring, to be looked at once at the end.
    """

    variants: tuple[Variant, ...]
    runs: tuple[tuple[str, int], ...]
    seeds: tuple[int, ...] = (7,)
    heads: tuple[probes.Head, ...] = ("probe",)
    choices: tuple[str, ...] = (probes.PRESET,)
    targets: tuple[str, ...] = ()
    preset: str = "demo"
    steps: int = 0
    without: tuple[str, str] | None = None


def compare(
    study: Study,
    cubes: dict[str, xr.Dataset],
    plan: Plan,
    *,
    settings: SplitSettings,
    device: torch.device | str = "cpu",
) -> Iterator[pd.DataFrame]:
    """Pretrain variants, put heads on them, and score held-out cells.

    Results are kept in `comparison_path`, and those that are there are not made again.

    Parameters
    ----------
    study : Study
    cubes : dict of Dataset
        By region.
    plan : Plan
    settings : SplitSettings
        The dead zone must fit the widest window among the variants.
    device : device

    Yields
    ------
    DataFrame
        New rows: `KEYS`, metric, value, draws (list: the bootstrap over deposits, the same deposits
        in every variant, head and seed), prevalence, deposits, configuration (what must be the same
        of rows that are compared), made_of.
    """
    path = comparison_path(study)
    for seed in plan.seeds:
        for run in plan.runs:
            for variant in plan.variants:
                rows = _one(study, cubes, variant, run, seed, plan, settings, device)
                if len(rows):
                    keep(path, rows)
                    yield rows


def comparison_path(study: Study) -> Path:
    """Return where a study's comparison lies."""
    return study.processed / "comparison.parquet"


def keep(path: Path, rows: pd.DataFrame) -> None:
    """Put rows into a table of comparisons, in place of older ones of the same run."""
    old = _read(path)
    if len(old):
        same = pd.MultiIndex.from_frame(old[KEYS]).isin(pd.MultiIndex.from_frame(rows[KEYS]))
        rows = pd.concat([old[~same], rows], ignore_index=True)
    artefacts.write_table(rows.sort_values([*KEYS, "metric"]).reset_index(drop=True), path)


def _one(
    study: Study,
    cubes: dict[str, xr.Dataset],
    variant: Variant,
    run: tuple[str, int],
    seed: int,
    plan: Plan,
    settings: SplitSettings,
    device: torch.device | str,
) -> pd.DataFrame:
    """Make the rows of one variant, run and seed that are not there yet."""
    if not asked(variant, run[0]):
        return pd.DataFrame()
    config = _config(cubes, variant, plan)
    fold = variant_fold(cubes, variant, *run, settings, config.window, targets=list(study.targets))
    keys = {"study": study.name, "split": run[0], "fold": str(run[1]), "seed": seed}
    keys |= {"variant": variant.name}
    names = plan.targets or tuple(study.targets)
    parts = {target: _parts(fold, cubes, target, plan.without) for target in names}
    ways = {way: _made_of(variant, plan, settings, cubes, fold, *way) for way in _ways(plan)}
    there = _known(comparison_path(study), keys)
    wanted = [
        (target, way)
        for target in names
        for way in ways
        if parts[target] is not None
        and (way[0] == "probe" or variant.sees == "network")
        and (_label(target, plan), *way, ways[way][1]) not in there
    ]
    if not wanted:
        return pd.DataFrame()
    encoder = backbone(fold, variant, config, plan, seed=seed, device=device).encoder
    rows = []
    for target, way in wanted:
        positive, deposit = labels(cubes, fold.windows, target)
        own = parts[target]
        assert own is not None  # else it is not wanted
        given: dict[str, Any] = {"sees": variant.sees, "aligned": variant.aligned, "seed": seed}
        given |= {"parts": own, "positive": positive}
        guess = probes.score_cells(fold, encoder, probes.tuning(*way, plan.preset), **given)
        made = metrics.Prediction(positive[own[2]], guess, deposit[own[2]], np.nan)
        named = keys | dict(zip(("head", "choice"), way, strict=True))
        named |= dict(zip(("configuration", "made_of"), ways[way], strict=True))
        rows += _score_rows(made, named | {"target": _label(target, plan)}, " ".join(map(str, run)))
    return pd.DataFrame(rows)


def _ways(plan: Plan) -> list[tuple[probes.Head, str]]:
    """Heads, and how each is trained; of a probe there is one way."""
    return [
        (head, choice)
        for head in plan.heads
        for choice in (plan.choices if head != "probe" else (probes.PRESET,))
    ]


def _config(cubes: dict, variant: Variant, plan: Plan) -> mae.MAEConfig:
    first = next(iter(cubes.values()))
    config = replace(mae.preset(plan.preset, first.sizes["layer"]), **variant.config)
    if config.task == "patches":
        return config
    return replace(config, units=masking.units(first, variant.units))


def _made_of(
    variant: Variant,
    plan: Plan,
    settings: SplitSettings,
    cubes: dict[str, xr.Dataset],
    fold: Fold,
    head: probes.Head,
    choice: str,
) -> tuple[str, str]:
    """What decides the numbers, besides their keys.

    Returns
    -------
    configuration : str
        Hash of all that must be the same where two variants or choices are compared: steps, cells,
        folds, data, code, and how a network of this head is fine-tuned by default.
    made_of : str
        That, and what is the row's own.
    """
    shared = {"preset": plan.preset, "steps": plan.steps, "cells": MOST, "split": asdict(settings)}
    shared |= {"checksums": _checksums(cubes), "code": fingerprints.code_hash("comparison")}
    default, own = (probes.tuning(head, name, plan.preset) for name in (probes.PRESET, choice))
    shared |= {"tuning": default and asdict(default)}
    configuration = hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:8]
    facts = asdict(variant) | {"configuration": configuration, "without": plan.without}
    facts |= {"tuning": own and asdict(own)}
    facts |= {"data": digest(fold.windows.canvas, fold.train, fold.test)}
    return configuration, json.dumps(facts)


def _checksums(cubes: dict[str, xr.Dataset]) -> dict[str, list[str]]:
    return {name: cube["checksum"].values.tolist() for name, cube in cubes.items()}


def _score_rows(made: metrics.Prediction, named: dict, fold: str) -> list[dict]:
    """One row a metric, with its bootstrap draws."""
    drawn = metrics.draw_fold(fold, made, (), DRAWS, 0)
    shared = {"prevalence": made.y.mean(), "deposits": int(drawn["deposits"][0])}
    rows = []
    for metric in SCORED:
        value, *draws = drawn[metric].astype("float32").tolist()
        rows.append(named | shared | {"metric": metric, "value": value, "draws": draws})
    return rows


def _label(target: str, plan: Plan) -> str:
    """Name a target; one of which a region is left out is not the same target."""
    if plan.without is not None and plan.without[0] == target:
        return f"{target} without {plan.without[1]}"
    return target


def _read(path: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Read a table of comparisons; nothing if it is from before rows had a configuration."""
    if not path.exists() or "configuration" not in pyarrow.parquet.read_schema(path).names:
        return pd.DataFrame()
    return pd.read_parquet(path, columns=columns)


def _known(path: Path, keys: dict) -> set[tuple[str, ...]]:
    """Return targets, heads, choices and what they were made of, of what is there already."""
    columns = ["target", "head", "choice", "made_of"]
    table = _read(path, [*keys, *columns])  # not the draws, which take most of it
    if table.empty:
        return set()
    here = np.logical_and.reduce([table[name] == value for name, value in keys.items()])
    return set(table.loc[here, columns].itertuples(index=False, name=None))


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
    """Return a fold, standardised as the variant wants it.

    Parameters
    ----------
    cubes : dict of Dataset
        By region, with labels.
    variant : Variant
    kind, number
        The split, and the number of its fold.
    settings : SplitSettings
    window : int
        Side of the windows (cells).
    targets : sequence of str
    """
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
    plan: Plan,
    *,
    seed: int,
    device: torch.device | str,
) -> mae.MaskedAutoencoder:
    """Pretrain a variant's backbone on a fold's training windows, or leave its weights random.

    A transductive variant learns from all windows; no variant sees a label.

    Parameters
    ----------
    fold : Fold
        Of `variant_fold`.
    variant : Variant
    config : MAEConfig
        Size and task of the network, with what the variant changes.
    plan : Plan
    seed : int
    device : device
    """
    if not variant.pretrained:
        return mae.build(config, seed).eval()
    settings = replace(training.PRETRAIN_PRESETS[plan.preset], reports=1)
    steps = {"steps": plan.steps or settings.steps}
    settings = replace(settings, **(steps | variant.settings))
    train = np.arange(len(fold.windows)) if variant.transductive else fold.train
    if variant.balanced:
        region = fold.windows.region[train]
        counts = np.bincount(region)
        train = np.repeat(train, np.round(counts.max() / counts[region]).astype(int))
    model, _ = training.pretrain(
        config,
        fold.windows,
        train,
        train[:0],
        settings,
        seed=seed,
        device=device,
        label=variant.name,
    )
    return model


def _parts(
    fold: Fold, cubes: dict, target: str, without: tuple[str, str] | None
) -> list[np.ndarray] | None:
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


def compare_study(
    study: Study, plan: Plan, *, folds: int = 3, control: str, device: str = "cpu"
) -> pd.DataFrame:
    """Run a comparison, line by line, and write its summary to `data/comparisons/`.

    Parameters
    ----------
    study : Study
        Notebook 01 has run.
    plan : Plan
    folds : int
        Of the block split.
    control : str
        The variant that others are compared with, under the same head.
    device : str

    Returns
    -------
    DataFrame
        Of `comparison_table.summary`, of all that was ever run of this study.
    """
    cubes = datacube.read_cubes(study)
    regions = list(cubes.values())
    # one division for all variants
    settings = split_settings(
        study,
        cubes,
        widest_window(plan.preset),
        seed=7,
        folds=folds,
        block_km=auto_block_km(regions, 5),
    )
    place = device_of(device)
    for rows in compare(study, cubes, plan, settings=settings, device=place):
        _say(rows)
    table = _name_regions(pd.read_parquet(comparison_path(study)), list(cubes))
    names = {"variant": [variant.name for variant in VARIANTS], "choice": list(probes.CHOICES)}
    ranks = {key: {name: k for k, name in enumerate(own)} for key, own in names.items()}
    summary = comparison_table.summary(table, control).sort_values(
        ["target", "split", "metric", "variant", "head", "choice"],
        key=lambda own: own.map(ranks[own.name]) if own.name in ranks else own,
        ignore_index=True,
    )
    facts = {"control": control, "cells": MOST, "draws": DRAWS, "preset": plan.preset}
    facts |= {"steps": plan.steps, "split": asdict(settings), "checksums": _checksums(cubes)}
    comparison_table.write(summary, artefacts.home() / "data" / "comparisons", facts)
    return summary


def _say(rows: pd.DataFrame) -> None:
    """Print a line for each target, head and choice."""
    for _, pair in rows.groupby(["target", "head", "choice"], sort=False):
        first = pair.iloc[0]
        found = ", ".join(f"{row.metric} {row.value:.3f}" for row in pair.itertuples())
        how = first["head"] + (f", {first['choice']}" if first["choice"] != probes.PRESET else "")
        where = f"{first['split']} {first['fold']}, seed {first['seed']}, {first['target']}"
        print(f"{where}: {first['variant']}, {how}: {found}", flush=True)


def _name_regions(table: pd.DataFrame, regions: list[str]) -> pd.DataFrame:
    """Make a split of each tested region ("to australia"): nothing is averaged over continents."""
    there = table["split"] == "region"
    named = "to " + table["fold"].where(there, "0").astype(int).map(dict(enumerate(regions)))
    return table.assign(split=table["split"].where(~there, named))
