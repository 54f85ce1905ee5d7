import numpy as np
import pandas as pd
import pytest
import torch
from helpers import toy_cube, toy_study

from mpm import comparison, fine_tuning, mae, training
from mpm.comparison import Plan
from mpm.folds import make_fold
from mpm.splits import SplitSettings
from mpm.training import PretrainSettings
from mpm.variants import Variant

RULES = SplitSettings(folds=4, block_km=20, dead_cells=5, seed=7)


@pytest.fixture
def cubes():
    return {"north": toy_cube(1), "south": toy_cube(2)}


@pytest.fixture
def study(tmp_path, monkeypatch, cubes):
    monkeypatch.setitem(
        training.PRETRAIN_PRESETS, "demo", PretrainSettings(steps=2, batch=4, augment=True)
    )
    return toy_study(tmp_path, monkeypatch, cubes)


def rows_of(study, cubes, *variants, **options):
    plan = Plan(variants, **({"runs": (("blocks", 0),)} | options))
    made = list(comparison.compare(study, cubes, plan, settings=RULES))
    return pd.concat(made, ignore_index=True) if made else pd.DataFrame()


def test_what_is_there_is_not_made_again(study, cubes, monkeypatch):
    "A second call trains nothing, another seed or another length of training does"
    variant = Variant("patches masked")
    first = rows_of(study, cubes, variant)
    assert first["metric"].tolist() == ["auc", "average_precision"]
    assert first["draws"].map(len).tolist() == [comparison.DRAWS] * 2
    assert first["deposits"].iloc[0] > 5
    calls = []
    whole = comparison.backbone
    monkeypatch.setattr(
        comparison, "backbone", lambda *a, **k: calls.append(k["seed"]) or whole(*a, **k)
    )
    assert rows_of(study, cubes, variant).empty and calls == []
    assert len(rows_of(study, cubes, variant, seeds=(8,))) == 2
    longer = rows_of(study, cubes, variant, steps=3)
    assert calls == [8, 7]
    kept = pd.read_parquet(comparison.comparison_path(study))
    assert kept.groupby("seed").size().to_dict() == {7: 2, 8: 2}
    newer = kept[kept["seed"] == 7]["value"].tolist()
    assert newer == longer["value"].tolist() != first["value"].tolist()


def test_rows_from_before_configurations_are_made_again(study, cubes):
    "They do not say what they may be compared with"
    variant = Variant("x", pretrained=False)
    first = rows_of(study, cubes, variant)
    place = comparison.comparison_path(study)
    first.drop(columns=["choice", "configuration"]).to_parquet(place)
    assert rows_of(study, cubes, variant)["value"].tolist() == first["value"].tolist()
    assert len(pd.read_parquet(place)) == len(first)


def test_one_seed_gives_the_same_numbers(study, cubes, tmp_path):
    "Bit by bit, with a probe and with fine-tuning"
    variant = Variant("patches masked")
    one = rows_of(study, cubes, variant, heads=("probe", "frozen"))
    comparison.comparison_path(study).unlink()
    two = rows_of(study, cubes, variant, heads=("probe", "frozen"))
    assert one["value"].tolist() == two["value"].tolist()
    assert set(one["head"]) == {"probe", "frozen"}


def test_what_is_held_back_is_neither_trained_on_nor_scored(cubes):
    "No cell of the region takes part for that target; others do"
    fold = make_fold(cubes, "blocks", 0, RULES, 9, targets=["MVT"])
    parts = comparison._parts(fold, cubes, "MVT", ("MVT", "south"))
    assert all((fold.windows.region[part] == 0).all() for part in parts)
    whole = comparison._parts(fold, cubes, "MVT", ("CD", "south"))
    assert all((fold.windows.region[part] == 1).any() for part in whole)


def test_a_target_without_a_region_goes_by_another_name(study, cubes):
    "Its deposits are others, so that it must not be set beside the whole target"
    rows = rows_of(study, cubes, Variant("patches masked"), without=("MVT", "south"))
    assert rows["target"].unique() == ["MVT without south"]
    whole = rows_of(study, cubes, Variant("patches masked"))
    assert whole["target"].unique() == ["MVT"]
    assert whole["deposits"].iloc[0] > rows["deposits"].iloc[0]


def test_a_region_is_tested_by_a_backbone_that_never_saw_it(study, cubes):
    "Scored deposits are those of the south only; the north is trained on"
    rows = rows_of(study, cubes, Variant("patches masked"), runs=(("region", 1),))
    assert rows["deposits"].unique() == [36]
    fold = comparison.variant_fold(cubes, Variant("x"), "region", 1, RULES, 9, targets=["MVT"])
    assert set(fold.windows.region[fold.train]) == {0}
    assert set(fold.windows.region[fold.test]) == {1}


def test_each_region_may_be_standardised_by_itself(cubes):
    "A region that is shifted by 100 becomes like the other"
    shifted = cubes | {"south": cubes["south"].copy(deep=True)}
    shifted["south"]["evidence"] += 100
    means = {}
    for per_region in (False, True):
        fold = comparison.variant_fold(
            shifted, Variant("x", per_region=per_region), "blocks", 0, RULES, 9, targets=["MVT"]
        )
        centres = fold.windows.centres()
        means[per_region] = [centres[fold.windows.region == k].mean() for k in (0, 1)]
    assert means[False][1] - means[False][0] > 1.5
    assert means[True] == pytest.approx([0, 0], abs=0.1)


def test_balanced_regions_give_equal_numbers_of_windows(study, cubes, monkeypatch):
    "A third of the south's training cells is repeated three times"
    fold = make_fold(cubes, "blocks", 0, RULES, 9, targets=["MVT"])
    region = fold.windows.region[fold.train]
    train = np.concatenate([fold.train[region == 0], fold.train[region == 1][::3]])
    fold = comparison.replace(fold, train=train)
    seen = []
    monkeypatch.setattr(
        training, "pretrain", lambda c, w, t, *a, **k: (seen.append(t), (mae.build(c, 0), None))[1]
    )
    config = mae.preset("demo", 2)
    for balanced in (False, True):
        variant = Variant("x", balanced=balanced)
        comparison.backbone(fold, variant, config, Plan((), ()), seed=1, device="cpu")
    shares = [(fold.windows.region[t] == 1).mean() for t in seen]
    assert shares[0] < 0.35
    assert shares[1] == pytest.approx(0.5, abs=0.08)
    assert set(seen[1]) == set(train)


def test_a_random_network_is_not_trained(study, cubes):
    "Its weights are those of its seed"
    fold = make_fold(cubes, "blocks", 0, RULES, 9, targets=["MVT"])
    config, plan = mae.preset("demo", 2), Plan((), ())
    made = {
        pretrained: comparison.backbone(
            fold, Variant("x", pretrained=pretrained), config, plan, seed=5, device="cpu"
        ).state_dict()
        for pretrained in (False, True)
    }
    start = mae.build(config, 5).state_dict()
    assert all(torch.equal(value, start[name]) for name, value in made[False].items())
    assert not torch.equal(made[True]["fill.weight"], start["fill.weight"])


def test_tested_regions_are_told_by_name():
    "Folds of the region split become splits of their own, those of blocks stay"
    table = pd.DataFrame({"split": ["region", "region", "blocks"], "fold": ["0", "1", "2"]})
    made = comparison._name_regions(table, ["north", "south"])
    assert made["split"].tolist() == ["to north", "to south", "blocks"]


def test_a_study_is_compared_line_by_line(study, cubes, tmp_path, monkeypatch, capsys):
    "One line a run, target and head; the summary and what it was made of are written"
    monkeypatch.setattr(comparison.artefacts, "home", lambda: tmp_path / "home")
    plan = Plan(
        (Variant("patches masked"), Variant("random network", pretrained=False)), (("region", 1),)
    )
    made = comparison.compare_study(study, plan, folds=2, control="random network")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].startswith(
        "region 1, seed 7, MVT: patches masked, probe: auc"
    )
    assert set(made["split"]) == {"to south"}
    order = made.loc[made["metric"] == "auc", "variant"].tolist()
    assert order == ["random network", "patches masked"], "not in the order of the list"
    own = made[made["variant"] == "random network"]
    assert own["difference"].tolist() == [0, 0]
    folder = tmp_path / "home" / "data" / "comparisons"
    assert sorted(path.name for path in folder.iterdir()) == ["toy.csv", "toy.json"]
    assert '"control": "random network"' in (folder / "toy.json").read_text()


def test_a_variant_that_would_be_another_under_a_new_name_is_not_run(study, cubes):
    "Balanced regions under the split by region: all that is learned from lies in one"
    assert rows_of(study, cubes, Variant("x", balanced=True), runs=(("region", 1),)).empty
    assert len(rows_of(study, cubes, Variant("x", balanced=True))) == 2


def test_windows_of_the_tested_region_may_be_learned_from_without_labels(cubes, monkeypatch):
    "All windows of both regions, as many of each; no other variant sees one of the tested region"
    fold = comparison.variant_fold(cubes, Variant("x"), "region", 1, RULES, 9, targets=["MVT"])
    seen = []
    monkeypatch.setattr(
        training, "pretrain", lambda c, w, t, *a, **k: (seen.append(t), (mae.build(c, 0), None))[1]
    )
    for variant in (Variant("x"), Variant("y", balanced=True, transductive=True)):
        comparison.backbone(
            fold, variant, mae.preset("demo", 2), Plan((), ()), seed=1, device="cpu"
        )
    assert set(fold.windows.region[seen[0]]) == {0}
    assert np.unique(seen[1]).tolist() == list(range(len(fold.windows)))
    assert np.bincount(fold.windows.region[seen[1]]).min() > 0.4 * len(seen[1])


def test_what_was_fine_tuned_otherwise_is_made_again(study, cubes, monkeypatch):
    "Other settings of fine-tuning or other code: new rows of networks, and of probes for code"
    variant, heads = Variant("patches masked"), ("probe", "frozen")
    short = fine_tuning.FineTuneSettings(steps=2, batch=4, every=1)
    monkeypatch.setitem(fine_tuning.FINE_TUNE_PRESETS, "demo", short)
    first = rows_of(study, cubes, variant, heads=heads)
    assert rows_of(study, cubes, variant, heads=heads).empty
    longer = comparison.replace(short, steps=3)
    monkeypatch.setitem(fine_tuning.FINE_TUNE_PRESETS, "demo", longer)
    again = rows_of(study, cubes, variant, heads=heads)
    assert set(again["head"]) == {"frozen"}
    before = first.loc[first["head"] == "frozen", "configuration"]
    assert set(again["configuration"]).isdisjoint(before)
    monkeypatch.setattr(comparison.fingerprints, "code_hash", lambda *modules: "other")
    assert set(rows_of(study, cubes, variant, heads=heads)["head"]) == set(heads)


def test_choices_of_fine_tuning_are_rows_of_their_own(study, cubes, monkeypatch):
    "Of networks, not of probes; of one target; all of one configuration with the preset's way"
    short = fine_tuning.FineTuneSettings(steps=2, batch=4, every=1)
    monkeypatch.setitem(fine_tuning.FINE_TUNE_PRESETS, "demo", short)
    own = (comparison.probes.PRESET, "negatives at random")
    made = rows_of(
        study, cubes, Variant("x"), heads=("probe", "full"), choices=own, targets=("MVT",)
    )
    found = made[["head", "choice"]].drop_duplicates().apply(tuple, axis=1).tolist()
    assert found == [("probe", own[0]), ("full", own[0]), ("full", own[1])]
    assert made.loc[made["head"] == "full", "configuration"].nunique() == 1
    assert rows_of(study, cubes, Variant("x"), heads=("full",), choices=own).empty
