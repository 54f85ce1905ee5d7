"""Pretraining of a study: one backbone a fold, by one process or many."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
import xarray as xr

from mpm import __version__, adapted, datacube, mae, transfer
from mpm.devices import device_of, fabric_on
from mpm.districts import check_apart
from mpm.folds import Fold, make_fold, read_settings, write_settings
from mpm.splits import SplitSettings, auto_block_km, cell_km, dead_cells
from mpm.study import Study
from mpm.training import PRETRAIN_PRESETS, PretrainSettings, held_out_loss, pretrain
from mpm.workers import in_processes

if TYPE_CHECKING:
    from lightning.fabric import Fabric


def split_settings(
    study: Study,
    cubes: dict[str, xr.Dataset],
    window: int,
    *,
    seed: int,
    folds: int = 5,
    random_folds: int = 1,
    region_folds: int = -1,
    block_km: float = 0.0,
) -> SplitSettings:
    """Choose how cells are divided.

    Parameters
    ----------
    study : Study
    cubes : dict of Dataset
        By region.
    window : int
        Cells along one side: the dead zone is half of it and the largest label radius wide.
    seed, folds, random_folds
        As of `SplitSettings`.
    region_folds : int
        Folds of the region split; -1: one a region. None if there is but one, or one of them has no
        deposit of a target.
    block_km : float
        Side of a block (km); 0: such that a fold has about five.

    Raises
    ------
    ValueError
        If regions share ground, or lie within the dead zone of each other.
    """
    regions = list(cubes.values())
    tested = len(regions) if region_folds < 0 else min(region_folds, len(regions))
    if len(regions) < 2 or not all(cube[t].values.any() for cube in regions for t in study.targets):
        tested = 0
    radius = max(study.target(name).radius for name in study.targets)
    dead = dead_cells(regions, window, radius)
    check_apart(regions, dead)
    return SplitSettings(
        folds=folds,
        random_folds=random_folds,
        block_km=block_km or auto_block_km(regions, folds),
        dead_cells=dead,
        seed=seed,
        regions=tested,
    )


def recipe(
    study: Study, cubes: dict[str, xr.Dataset], *, preset: str, steps: int = 0
) -> tuple[mae.MAEConfig, PretrainSettings]:
    """Choose what is pretrained, and how.

    Parameters
    ----------
    study : Study
    cubes : dict of Dataset
        By region.
    preset : {"demo", "paper"}
    steps : int
        Training steps a backbone. 0: the preset's, or none where the study names a backbone that
        was pretrained elsewhere, which is then taken as it is.

    Returns
    -------
    config : MAEConfig
    settings : PretrainSettings

    Raises
    ------
    ValueError
        If there is no such preset, or the study's backbone takes windows of another size.
    FileNotFoundError, ValueError
        As `transfer.borrow`.
    """
    first = next(iter(cubes.values()))
    config, settings = mae.preset(preset, first.sizes["layer"]), PRETRAIN_PRESETS[preset]
    if study.backbone is None:
        return config, replace(settings, steps=steps or settings.steps)
    borrowed = adapted.config_of(transfer.borrow(study, first))
    if borrowed.window != config.window:
        raise ValueError(
            f"{study.path}: backbone {study.backbone_folder} takes windows of {borrowed.window} "
            f"cells, preset {preset!r} has {config.window}; take the preset that it was made with"
        )
    return borrowed, replace(settings, steps=steps)


def pretrain_fold(
    study: Study,
    cubes: dict[str, xr.Dataset],
    split: SplitSettings,
    kind: str,
    number: int,
    config: mae.MAEConfig,
    settings: PretrainSettings,
    *,
    seed: int,
    preset: str,
    device: torch.device | str = "cpu",
    fabric: "Fabric | None" = None,
) -> tuple[Fold, pd.DataFrame]:
    """Pretrain a fold's backbone on its training cells, and save it.

    If the study names a backbone that was pretrained elsewhere, that is saved for the study's
    layers, after as many steps more as `settings` say, none of them as a rule.

    While it trains, a checkpoint lies beside the backbone's folder: after a crash the same call
    goes on from there.

    Parameters
    ----------
    study : Study
    cubes : dict of Dataset
        By region, with labels.
    split : SplitSettings
    kind, number
        Name of the split and number of the fold.
    config, settings
        What is trained, and how, as of `recipe`.
    seed : int
    preset : str
        What to call `config` and `settings` in the backbone's facts.
    device, fabric
        As of `training.pretrain`; of several processes the first one saves.

    Returns
    -------
    fold : Fold
    history : DataFrame
        step, loss, held_out (on validation and test cells). Of a backbone from elsewhere that did
        not learn on, one row without a loss.
    """
    fabric = fabric or fabric_on(device)
    own = {"study": study.name, "split": kind, "fold": number, "seed": seed, "preset": preset}
    parts: dict[str, Any] = {"settings": split, "window": config.window}
    parts["targets"] = list(study.targets)
    fold, start = make_fold(cubes, kind, number, **parts), None
    if study.backbone is not None:
        borrowed = transfer.borrow(study, next(iter(cubes.values())))
        start, scaling = adapted.network(borrowed), adapted.scaling_of(borrowed, fold.scaling)
        fold = make_fold(cubes, kind, number, **parts, scaling=scaling)
        own["backbone"] = transfer.facts_of(study, borrowed)
    folder = mae.backbone_path(study, kind, number)
    way = {"seed": seed, "fabric": fabric, "label": f"{kind} {number}", "start": start}
    layers = next(iter(cubes.values()))["layer"].values.tolist()

    def keep(model: mae.MaskedAutoencoder) -> None:
        if fabric.is_global_zero:
            mae.save(model, folder, layers=layers, scaling=fold.scaling, facts=own | facts(cubes))

    checkpoint = folder.with_suffix(".safetensors")
    history = _learn(config, fold, settings, checkpoint=checkpoint, keep=keep, **way)
    fabric.barrier()
    return fold, history


def pretrain_folds(
    study: Study,
    split: SplitSettings,
    config: mae.MAEConfig,
    settings: PretrainSettings,
    *,
    seed: int,
    preset: str,
    device: torch.device | str = "cpu",
    processes: int = 0,
) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """Pretrain the backbone of every fold, in parallel processes; each is saved.

    Parameters
    ----------
    study : Study
        Notebook 01 has run.
    split, config, settings, seed, preset, device
        As of `pretrain_fold`.
    processes : int
        Folds at a time, as of `workers.in_processes`.

    Yields
    ------
    name : str
        Split and fold, in the order of `split.runs()`.
    history : DataFrame
        As of `pretrain_fold`.
    text : str
        The same in a line.
    """
    what = (study, split, config, settings)
    work = partial(_pretrain, *what, seed=seed, preset=preset, device=device)
    yield from in_processes(
        work, split.runs(), processes, "pretraining", ordered=True, device=device
    )


def _pretrain(
    study: Study,
    split: SplitSettings,
    config: mae.MAEConfig,
    settings: PretrainSettings,
    kind: str,
    number: int,
    **way: Any,
) -> tuple[str, pd.DataFrame, str]:
    started = time.perf_counter()
    what = (study, datacube.read_cubes(study), split, kind, number, config, settings)
    fold, history = pretrain_fold(*what, **way)
    return f"{kind} {number}", history, line(fold, history, time.perf_counter() - started)


def _learn(
    config: mae.MAEConfig, fold: Fold, settings: PretrainSettings, **way: Any
) -> pd.DataFrame:
    """Pretrain on a fold's training windows; what is there at the start stays without steps."""
    held_out, start = np.concatenate([fold.validation, fold.test]), way["start"]
    if start is not None and not settings.steps:
        way["keep"](start)
        loss = held_out_loss(start, fold.windows, held_out)
        return pd.DataFrame([[0, np.nan, loss]], columns=["step", "loss", "held_out"])
    return pretrain(config, fold.windows, fold.train, held_out, settings, **way)[1]


def facts(cubes: dict[str, xr.Dataset]) -> dict:
    """Return what a backbone's data were, and what it was made with.

    Returns
    -------
    dict
        units: of each layer; checksums: of each region's and layer's file; resolution: of each
        region's cells (m); versions: of packages.
    """
    first = next(iter(cubes.values()))
    packages = {name: version(name) for name in ("torch", "timm", "lightning", "numpy")}
    return {
        "resolution": {region: round(1000 * cell_km(cube), 6) for region, cube in cubes.items()},
        "units": _by_layer(first, "units"),
        "checksums": {region: _by_layer(cube, "checksum") for region, cube in cubes.items()},
        "versions": {"mpm": __version__} | packages,
    }


def _by_layer(cube: xr.Dataset, name: str) -> dict[str, str]:
    return dict(zip(cube["layer"].values.tolist(), cube[name].values.tolist(), strict=True))


def pretrain_study(
    study: Study,
    *,
    preset: str = "demo",
    split: str = "all",
    fold: int | None = None,
    seed: int = 7,
    steps: int = 0,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
) -> None:
    """Pretrain the backbones that notebook 02 would make, and put them where it would.

    Parameters
    ----------
    study : Study
        Notebook 01 has run.
    preset : {"demo", "paper"}
    split : {"all", "blocks", "random", "final"}
    fold : int, optional
        Of that split; all by default.
    seed : int
    steps : int
        As of `recipe`.
    device, devices, nodes
        As of `devices.fabric_on`.

    Raises
    ------
    ValueError
        If there is no such preset, split, fold or device, steps or seed are negative, or if some
        backbones are asked for and those that are there were made for another division of the
        cells.
    FileNotFoundError
        If notebook 01 has not run.
    """
    if steps < 0 or seed < 0:
        raise ValueError(
            f"steps {steps} and seed {seed} must not be negative; 0 steps: the preset's"
        )
    cubes = datacube.read_cubes(study)
    config, settings = recipe(study, cubes, preset=preset, steps=steps)
    rules = split_settings(study, cubes, config.window, seed=seed)
    runs = _chosen(rules.runs(), split, fold)
    _check_division(study, rules, preset, whole=runs == rules.runs())
    fabric = fabric_on(device_of(device), devices=devices, nodes=nodes)
    if fabric.is_global_zero:
        write_settings(study, rules, preset=preset)
        print(f"{preset} backbones: {fabric.world_size} x {fabric.device.type}", flush=True)
        print("".join(f"{text}\n" for text in transfer.lines(study, cubes)), end="", flush=True)
    for kind, number in runs:
        started = time.perf_counter()
        what = (study, cubes, rules, kind, number, config, settings)
        made, history = pretrain_fold(*what, seed=seed, preset=preset, fabric=fabric)
        if fabric.is_global_zero:
            print(line(made, history, time.perf_counter() - started), flush=True)


def line(fold: Fold, history: pd.DataFrame, seconds: float) -> str:
    """Say in one line how a fold's pretraining went."""
    loss = history["held_out"].iloc[-1]
    how = f"{len(fold.train):6d} training windows"
    if history["step"].iloc[-1] == 0:
        how = "not pretrained here, taken as it is"
    return f"{fold.split:>6} {fold.number}: {how}, held-out loss {loss:.3f}, {seconds:.0f} s"


def _chosen(runs: Sequence[tuple[str, int]], split: str, fold: int | None) -> list[tuple[str, int]]:
    """Return the runs of a split, or one of them."""
    if split == "all" and fold is not None:
        raise ValueError(f"fold {fold} of which split? Give one of blocks, random, final")
    chosen = [run for run in runs if split in ("all", run[0]) and fold in (None, run[1])]
    if not chosen:
        there = ", ".join(f"{kind} {number}" for kind, number in runs)
        raise ValueError(f"no fold {fold} of a split {split!r}; there are {there}")
    return chosen


def _check_division(study: Study, rules: SplitSettings, preset: str, *, whole: bool) -> None:
    """Refuse to mix backbones of two divisions: one's training cells are the other's test cells."""
    if whole or not (study.processed / "splits.json").exists():
        return
    before, own = read_settings(study)
    if (before, own) != (rules, preset):
        raise ValueError(
            f"the backbones of {study.name} were made with {before} and preset {own}, these would "
            f"be with {rules} and preset {preset}: give those options, or pretrain all of them anew"
        )
