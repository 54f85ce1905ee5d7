"""What all trials of a study share, and the folds that they are given."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import xarray as xr

from mpm import datacube, mae, methods
from mpm.folds import Fold, labels, make_fold, open_fold
from mpm.methods import NEEDS_BACKBONE, Task
from mpm.splits import SplitSettings
from mpm.study import Study

Key = tuple[str, int, str]  # split, fold, method


@dataclass(frozen=True)
class Bench:
    """What all trials of a study share, sent to every process.

    Attributes
    ----------
    study : Study
        Notebook 01 has run; for methods on a backbone notebook 02, too.
    target : str
    settings : SplitSettings
    preset : str
        Size of windows and networks.
    seed : int
    device : str
    fit : function
        (method, Task) -> scorer; `methods.fit`, or another that the processes can import.
    build : function, optional
        (bench, cubes, split, number) -> Fold, in place of `folds.make_fold`.
    """

    study: Study
    target: str
    settings: SplitSettings
    preset: str
    seed: int
    device: str = "cpu"
    fit: Callable = methods.fit
    build: Callable | None = None

    def window(self, cubes: Mapping[str, xr.Dataset]) -> int:
        """Return the side of the preset's windows, in cells."""
        return mae.preset(self.preset, next(iter(cubes.values())).sizes["layer"]).window


def tasks(bench: Bench, split: str, number: int, names: Sequence[str]) -> Iterator[tuple]:
    """Make one fold and give it to each method: (method, Task).

    Parameters
    ----------
    bench : Bench
    split, number
        The split, and the number of its fold.
    names : sequence of str
        Methods.

    Raises
    ------
    ValueError
        If a method needs the fold's backbone and that has seen other cells.
    """
    cubes = datacube.read_cubes(bench.study)
    first = next(iter(cubes.values()))
    if bench.build:
        fold = bench.build(bench, cubes, split, number)
    else:
        targets, window = list(bench.study.targets), bench.window(cubes)
        fold = make_fold(cubes, split, number, bench.settings, window, targets=targets)
    positive, deposit = labels(cubes, fold.windows, bench.target)
    backbone, seen = None, fold
    if any(map(on_backbone, names)):
        backbone, seen = _backbone(bench, cubes, fold)
    kept: dict = {}
    for name in names:
        yield (
            name,
            Task(
                seen if on_backbone(name) else fold,
                positive,
                deposit,
                tuple(first["layer"].values.tolist()),
                cubes,
                bench.seed,
                bench.preset,
                backbone if on_backbone(name) else None,
                bench.device,
                kept,
            ),
        )


def _backbone(
    bench: Bench, cubes: dict[str, xr.Dataset], fold: Fold
) -> tuple[mae.MaskedAutoencoder, Fold]:
    """The fold's backbone, if it comes from the fold's training cells, and the fold as it sees it.

    One that was pretrained elsewhere sees the same cells, by its own scaling.
    """
    folder = mae.backbone_path(bench.study, fold.split, fold.number)
    if bench.study.backbone is not None:
        seen, model = open_fold(bench.study, cubes, fold.split, fold.number, bench.settings)
        return model, seen
    cube = next(iter(cubes.values()))
    layers, units = cube["layer"].values.tolist(), cube["units"].values.tolist()
    model, scaling, _ = mae.load(folder, layers=layers, units=units)
    if model.config.window != fold.windows.size or scaling.seen != fold.scaling.seen:
        raise ValueError(
            f"backbone {folder} was pretrained on other windows or cells than fold {fold.number} "
            f"of split {fold.split} trains on; run notebook 02_mae_pretraining again"
        )
    return model, fold


def on_backbone(name: str) -> bool:
    """Say whether a method sees through the fold's backbone."""
    return name.rpartition(":")[2] in NEEDS_BACKBONE
