"""The network that notebook 03 fine-tuned on a fold, for whoever would train the same again."""

from pathlib import Path

import numpy as np

from mpm import artefacts, mapping
from mpm.classifier import classifier_path, load_classifier
from mpm.network_methods import scorer_of
from mpm.study import Study
from mpm.tasks import Scorer, Task

CLOSE = 1e-4  # likelihoods that differ by less are the same network's


def find(study: Study, target: str, split: str, number: int, *, seed: int, preset: str) -> Path:
    """Return the folder of a fold's fine-tuned network, made with this seed and preset.

    Parameters
    ----------
    study, target, split, number
        Whose network.
    seed : int
    preset : str

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    folder = classifier_path(study, target, split, number)
    place = artefacts.require(folder / "model.json", "03_fine_tuning")
    facts = artefacts.read_facts(place, "facts")["facts"]
    wanted = {"target": target, "split": split, "fold": number, "seed": seed, "preset": preset}
    if any(facts.get(name) != value for name, value in wanted.items()):
        raise FileNotFoundError(f"{folder} was not made with seed {seed} and preset {preset!r}")
    return folder


def scorer(study: Study, target: str, task: Task) -> Scorer | None:
    """Return a fold's fine-tuned network, if it is the one whose held-out predictions are scored.

    It must give the kept predictions of notebook 03 again, on the same test cells: then it was
    trained on this fold, of this evidence, and stress is put on the very network of the table of
    scores.

    Parameters
    ----------
    study, target
        Whose network.
    task : Task
        Fold, seed, preset and device.

    Returns
    -------
    Scorer or None
        None if there is none, or it says something else.
    """
    fold = task.fold
    seed, preset = task.seed, task.preset
    try:
        folder = find(study, target, fold.split, fold.number, seed=seed, preset=preset)
        kept = artefacts.read_table(
            mapping.predictions_path(study, target, "mae"), "03_fine_tuning"
        )
    except (FileNotFoundError, ValueError):
        return None
    rows = kept[(kept["split"] == fold.split) & (kept["fold"] == str(fold.number))]
    found = scorer_of(load_classifier(folder).classifier, task.seed, task.device)
    windows, test = fold.windows, fold.test
    cells = np.column_stack([windows.region[test], windows.row[test], windows.col[test]])
    if not np.array_equal(rows[["region", "row", "col"]].to_numpy(), cells):
        return None
    some = np.linspace(0, len(test) - 1, min(len(test), 64)).astype(int)
    said = rows["likelihood"].to_numpy()[some]
    return found if np.allclose(found(windows, test[some]), said, atol=CLOSE) else None
