"""Tables of results in the README and in `data/scores`, written from scores and comparisons.

A page names each table between two comments, `<!-- results NAME -->` and `<!-- end -->`, and what
stands between them is replaced; nothing is typed by hand.
"""

import itertools
import re
from pathlib import Path

import pandas as pd

from mpm import artefacts, comparison_table, study_scores
from mpm.evaluation import score_table
from mpm.metrics import read_scores
from mpm.plots import METHODS
from mpm.study import load

SPLITS = ("blocks", "random")
METRICS = {"auc": "AUC", "average_precision": "AP"}
# the truth first, then methods of every kind, and a control that knows no geology
SHOWN = (
    "oracle",
    "gradient_boosting_window",
    "gradient_boosting",
    "random_forest",
    "random_forest_window",
    "mae",
    "vit_scratch",
    "resnet18",
    "weights_of_evidence",
    "distance_to_deposit",
)
REAL = ("us_midcontinent_mini", "znpb")
SPLITS_OF_REAL = ("blocks", "region", "random")
SHOWN_OF_REAL = ("logistic_regression", "pu_bagging", *SHOWN)
PAIR = ("random network", "patches masked")
FRONT, REST = "README.md", "data/scores/README.md"  # pages of the tables


def write(study: str = "demo", target: str = "MVT", *, seed: int = 7) -> list[Path]:
    """Write the study's table into the README, those of real ground into `data/scores/README.md`.

    Parameters
    ----------
    study, target : str
        What the README's table shows.
    seed : int
        Of the run.

    Returns
    -------
    list of Path
        Both pages.

    Raises
    ------
    FileNotFoundError
        If the study has no scores yet.
    ValueError
        If scores of a method are missing, or a page has no place for a table.
    """
    tables = {FRONT: {study: of_methods(study, target, seed=seed)}}
    tables[REST] = {"studies": of_studies(), "real": of_real()}
    texts = {}
    for page, own in tables.items():
        place = artefacts.home() / page
        texts[place] = place.read_text(encoding="utf-8")
        for name, table in own.items():
            texts[place] = _put(texts[place], name, table, page)
    for place, text in texts.items():
        with artefacts.atomic(place) as fresh:
            fresh.write_text(text, encoding="utf-8")
    return list(texts)


def of_methods(study: str, target: str, *, seed: int) -> str:
    """Lay out methods down, splits and scores across, each score with its 95 % interval.

    Parameters
    ----------
    study, target : str
    seed : int

    Returns
    -------
    str
        A Markdown table: the truth, then the others by average precision under blocks, at the end
        what any ranking at random scores.

    Raises
    ------
    FileNotFoundError
        If there are no scores yet.
    ValueError
        If a method of `SHOWN` has no score under one of `SPLITS`.
    """
    path = load(study).processed / "scores.parquet"
    scores = read_scores(path)
    mean = scores[(scores["target"] == target) & (scores["seed"] == seed)]
    mean = mean[(mean["fold"] == "mean") & mean["method"].isin(SHOWN)]
    value = mean.set_index(["split", "method", "metric"])["value"]
    for key in itertools.product(SPLITS, SHOWN, METRICS):
        if key not in value.index:
            raise ValueError(
                f"{path} has no {key[2]} of {key[1]} under {key[0]} for {target}, seed {seed}; "
                f"`mpm run {study} --target {target} --seed {seed}` makes it"
            )
    text = score_table(mean, list(METRICS), SHOWN)
    others = sorted(SHOWN[1:], key=lambda name: -value[SPLITS[0], name, "average_precision"])
    rows = [
        [METHODS[name], *(text.loc[(split, name), key] for split in SPLITS for key in METRICS)]
        for name in (SHOWN[0], *others)
    ]
    shares = [f"{value[split, SHOWN[0], 'prevalence']:.3f}" for split in SPLITS]
    rows.append(["any ranking at random", *(text for share in shares for text in ("0.500", share))])
    head = ["method", *(f"{label}, {split}" for split in SPLITS for label in METRICS.values())]
    return _markdown(head, rows)


def of_studies() -> str:
    """Lay out the AUC of methods on real ground, from `data/scores`.

    Returns
    -------
    str
        A Markdown table: methods down, studies and splits across; the best mean over studies under
        blocks comes first, and a cell is empty where a method was not run.
    """
    scores = study_scores.read()
    own = scores[(scores["metric"] == "auc") & scores["method"].isin(SHOWN_OF_REAL)]
    texts = {
        key: score_table(part, ["auc"], SHOWN_OF_REAL)["auc"]
        for key, part in own.groupby(["study", "target"], sort=False)
    }
    columns = [
        (key, split)
        for key, text in texts.items()
        for split in SPLITS_OF_REAL
        if split in text.index.get_level_values("split")
    ]
    blocks = own[own["split"] == "blocks"].groupby("method")["value"].mean()
    rows = [
        [METHODS[name], *(texts[key].get((split, name), "") for key, split in columns)]
        for name in blocks.sort_values(ascending=False).index
    ]
    return _markdown(["method", *(f"{', '.join(key)}: {split}" for key, split in columns)], rows)


def of_real() -> str:
    """Lay out what pretraining adds on the real studies, from `data/comparisons`.

    Networks with random and with pretrained weights, both fine-tuned, under blocks, with three
    seeds; the difference is of the same folds, seeds and resampled deposits.

    Returns
    -------
    str
        A Markdown table.
    """
    rows = []
    for study in REAL:
        table = pd.read_csv(artefacts.home() / "data" / "comparisons" / f"{study}.csv")
        fine = table[(table["split"] == "blocks") & (table["head"] == "full")]
        fine = fine[fine["choice"] == comparison_table.PRESET]
        fine = fine[fine["metric"].isin(METRICS)]
        for (target, metric), part in fine.groupby(["target", "metric"], sort=False):
            own = part.set_index("variant")
            cells = ["{value:.3f} ({low:.3f} to {high:.3f})".format(**own.loc[k]) for k in PAIR]
            gain = "{difference:+.3f} ({difference_low:+.3f} to {difference_high:+.3f})"
            cells.append(gain.format(**own.loc[PAIR[1]]))
            rows.append([f"{study}, {target}", METRICS[metric], *cells])
    return _markdown(["study, target", "score", "random weights", "pretrained", "gain"], rows)


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _put(text: str, name: str, table: str, page: str) -> str:
    """Replace what stands between the comments of one table."""
    between = re.compile(rf"(<!-- results {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if len(between.findall(text)) != 1:
        raise ValueError(
            f"{page} needs a line `<!-- results {name} -->`, once, and `<!-- end -->` after it"
        )
    return between.sub(lambda found: f"{found[1]}\n{table}\n\n{found[2]}", text)
