"""What may happen to a method's input: deposits nobody knows, evidence lost, noisy or shifted."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from mpm.methods import Task
from mpm.windows import Windows

TOWARDS = {"north": (-1, 0), "south": (1, 0), "west": (0, -1), "east": (0, 1)}


def with_deposits(task: Task, share: float, *, seed: int) -> Task:
    """Forget some of the training deposits: their training cells become unlabeled, as in reality.

    Whole deposits are drawn, at least one. A smaller share of the same seed is part of a larger.
    Validation and test cells keep theirs.

    Parameters
    ----------
    task : Task
    share : float
        Of the training deposits that stay known.
    seed : int
    """
    known = task.fold.train[task.positive[task.fold.train]]
    numbers = np.unique(task.deposit[known])
    kept = np.random.default_rng(seed).permutation(numbers)[: max(1, round(share * len(numbers)))]
    lost = known[~np.isin(task.deposit[known], kept)]
    positive, deposit = task.positive.copy(), task.deposit.copy()
    positive[lost], deposit[lost] = False, -1
    return replace(task, positive=positive, deposit=deposit)


def perturbations(task: Task, noise: Sequence[float], draws: int, *, seed: int) -> list[tuple]:
    """List what may happen to the evidence of a fold.

    Parameters
    ----------
    task : Task
        Its cubes say which plane belongs to which layer (`origin`) and group.
    noise : sequence of float
        Standard deviations.
    draws : int
        Of halves of the layers, and of noise.
    seed : int
        Of the first of them.

    Returns
    -------
    list of tuple
        Stress, level, name, and functions Windows -> Windows, one a draw. "layer" and "group": all
        planes of the one named are lost; "half": those of a random half of the layers (level: 0.5);
        "noise" (level: standard deviations); "shift": all layers move by a cell towards the name.
    """
    cube = next(iter(task.cubes.values()))
    origin, group = cube["origin"].values, cube["group"].values
    layers, numbers = list(dict.fromkeys(origin.tolist())), range(seed, seed + draws)
    planes = ~np.array(task.fold.scaling.binary)
    found = [
        (stress, np.nan, name, [partial(without, planes=of == name)])
        for stress, of in {"layer": origin, "group": group}.items()
        for name in dict.fromkeys(of.tolist())
    ]
    halves = [np.random.default_rng(k).permutation(layers)[: len(layers) // 2] for k in numbers]
    found += [("half", 0.5, "", [partial(without, planes=np.isin(origin, h)) for h in halves])]
    for deviation in noise:
        ways = [partial(noisy, planes=planes, deviation=deviation, seed=k) for k in numbers]
        found += [("noise", deviation, "", ways)]
    return found + [
        ("shift", 1.0, name, [partial(shifted, rows=rows, cols=cols)])
        for name, (rows, cols) in TOWARDS.items()
    ]


def without(windows: Windows, planes: np.ndarray) -> Windows:
    """Return windows in which some planes, (layers,) bool, were never observed."""
    canvas, seen = windows.canvas.clone(), windows.seen.clone()
    lost = torch.as_tensor(planes, device=canvas.device)
    canvas[lost], seen[lost] = 0.0, False
    return replace(windows, canvas=canvas, seen=seen)


def noisy(windows: Windows, planes: np.ndarray, deviation: float, *, seed: int) -> Windows:
    """Return windows with normal noise on the observed cells of some planes.

    Parameters
    ----------
    windows : Windows
    planes : array (layers,) of bool
    deviation : float
        Of the noise, in standard deviations of the training cells.
    seed : int
    """
    canvas = windows.canvas.clone()
    generator = torch.Generator().manual_seed(seed)
    for k in np.flatnonzero(planes):
        noise = torch.randn(canvas.shape[1:], generator=generator).to(canvas.device)
        canvas[k] += deviation * noise * windows.seen[k]
    return replace(windows, canvas=canvas)


def shifted(windows: Windows, rows: int, cols: int) -> Windows:
    """Return windows whose evidence lies some cells further down and right than it should.

    Raises
    ------
    ValueError
        If evidence would move from one region into another.
    """
    if max(abs(rows), abs(cols)) > windows.size // 2:
        raise ValueError(
            f"evidence cannot move by {rows} rows and {cols} columns where windows are "
            f"{windows.size} cells wide; shift it by at most half a window"
        )
    # regions are padded by half a window of missing cells, into which they move
    canvas, seen = (plane.roll((rows, cols), (1, 2)) for plane in (windows.canvas, windows.seen))
    return replace(windows, canvas=canvas, seen=seen)
