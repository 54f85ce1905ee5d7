"""Pretraining of a study: one backbone a fold, by one process or many."""

import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
import xarray as xr

from mpm import __version__, datacube, mae
from mpm.devices import device_of, fabric_on
from mpm.folds import Fold, make_fold, read_settings, write_settings
from mpm.splits import SplitSettings, auto_block_km, dead_cells
from mpm.study import Study
from mpm.training import PRETRAIN_PRESETS, PretrainSettings, pretrain

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
    """
    regions = list(cubes.values())
    tested = len(regions) if region_folds < 0 else min(region_folds, len(regions))
    if len(regions) < 2 or not all(cube[t].values.any() for cube in regions for t in study.targets):
        tested = 0
    radius = max(study.target(name).radius for name in study.targets)
    return SplitSettings(
        folds=folds,
        random_folds=random_folds,
        block_km=block_km or auto_block_km(regions, folds),
        dead_cells=dead_cells(regions, window, radius),
        seed=seed,
        regions=tested,
    )


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
        What is trained, and how.
    seed : int
    preset : str
        What to call `config` and `settings` in the backbone's facts.
    device, fabric
        As of `training.pretrain`; of several processes the first one saves.

    Returns
    -------
    fold : Fold
    history : DataFrame
        step, loss, held_out (on validation and test cells).
    """
    fabric = fabric or fabric_on(device)
    fold = make_fold(cubes, kind, number, split, config.window, targets=list(study.targets))
    held_out = np.concatenate([fold.validation, fold.test])
    folder = mae.backbone_path(study, kind, number)
    model, history = pretrain(
        config,
        fold.windows,
        fold.train,
        held_out,
        settings,
        seed=seed,
        fabric=fabric,
        label=f"{kind} {number}",
        checkpoint=folder.with_suffix(".safetensors"),
    )
    if fabric.is_global_zero:
        own = {"study": study.name, "split": kind, "fold": number, "seed": seed, "preset": preset}
        layers = next(iter(cubes.values()))["layer"].values.tolist()
        mae.save(model, folder, layers=layers, scaling=fold.scaling, facts=own | facts(cubes))
    fabric.barrier()
    return fold, history


def facts(cubes: dict[str, xr.Dataset]) -> dict:
    """Return what a backbone's data were, and what it was made with.

    Returns
    -------
    dict
        units: of each layer; checksums: of each region's and layer's file; versions: of packages.
    """
    first = next(iter(cubes.values()))
    packages = {name: version(name) for name in ("torch", "timm", "lightning", "numpy")}
    return {
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
        Training steps a backbone; 0: the preset's.
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
    config = mae.preset(preset, next(iter(cubes.values())).sizes["layer"])
    settings = PRETRAIN_PRESETS[preset]
    settings = replace(settings, steps=steps or settings.steps)
    rules = split_settings(study, cubes, config.window, seed=seed)
    runs = _chosen(rules.runs(), split, fold)
    _check_division(study, rules, preset, whole=runs == rules.runs())
    fabric = fabric_on(device_of(device), devices=devices, nodes=nodes)
    if fabric.is_global_zero:
        write_settings(study, rules, preset=preset)
        print(f"{preset} backbones: {fabric.world_size} x {fabric.device.type}", flush=True)
    for kind, number in runs:
        started = time.perf_counter()
        what = (study, cubes, rules, kind, number, config, settings)
        made, history = pretrain_fold(*what, seed=seed, preset=preset, fabric=fabric)
        if fabric.is_global_zero:
            print(line(made, history, time.perf_counter() - started), flush=True)


def line(fold: Fold, history: pd.DataFrame, seconds: float) -> str:
    """Say in one line how a fold's pretraining went."""
    loss = history["held_out"].iloc[-1]
    return (
        f"{fold.split:>6} {fold.number}: {len(fold.train):6d} training windows, "
        f"held-out loss {loss:.3f}, {seconds:.0f} s"
    )


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
