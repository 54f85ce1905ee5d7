from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mpm import comparison_table

ROOT = Path(__file__).resolve().parents[1]


def rows(variant, *values, seed=7, fold="0", draws=None, head="probe", metric="auc", **more):
    "One row a value, of folds 0, 1, ... unless told"
    return [
        {
            "study": "toy", "target": "MVT", "split": "blocks",
            "fold": str(k) if fold is None else fold,
            "seed": seed, "variant": variant, "head": head, "metric": metric, "value": value,
            "draws": [value] * 4 if draws is None else draws, "prevalence": 0.1, "deposits": 10,
            "choice": comparison_table.PRESET, "configuration": "a",
        } | more
        for k, value in enumerate(values)
    ]  # fmt: skip


def table(*parts):
    return pd.DataFrame([row for part in parts for row in part])


def one(summary, variant):
    return summary[summary["variant"] == variant].iloc[0]


def test_values_are_means_over_folds_and_seeds():
    "Folds 0.6 and 0.8 with seed 7, 0.7 and 0.9 with seed 8: 0.75; deposits are those of all folds"
    made = comparison_table.summary(
        table(rows("a", 0.6, 0.8, fold=None), rows("a", 0.7, 0.9, fold=None, seed=8)),
        "a",
    )
    assert one(made, "a")["value"] == pytest.approx(0.75)
    assert one(made, "a")[["folds", "seeds", "deposits"]].tolist() == [2, 2, 20]
    assert one(made, "a")["difference"] == 0


def test_intervals_span_seeds_and_deposits():
    "Two seeds that differ by 0.2, no spread over deposits: draws are 0.5, 0.6 or 0.7"
    draws = 400
    parts = [rows("a", v, seed=s, draws=[v] * draws) for s, v in ((7, 0.5), (8, 0.7))]
    made = one(comparison_table.summary(table(*parts), "a"), "a")
    assert made["value"] == pytest.approx(0.6)
    assert [made["low"], made["high"]] == pytest.approx([0.5, 0.7])
    spread = list(np.linspace(0.4, 0.6, draws))
    made = one(comparison_table.summary(table(rows("a", 0.5, draws=spread)), "a"), "a")
    assert [made["low"], made["high"]] == pytest.approx([0.405, 0.595], abs=1e-3)


def test_differences_are_paired_by_deposit_and_seed():
    "Both move together from draw to draw and seed to seed, so that 0.1 between them is certain"
    parts = []
    for seed, level in ((7, 0.3), (8, 0.6)):
        for name, gap in (("control", 0.0), ("better", 0.1)):
            value = level + gap
            drawn = list(value + np.linspace(-0.2, 0.2, 100))
            parts.append(rows(name, value, seed=seed, draws=drawn))
    made = comparison_table.summary(table(*parts), "control")
    gap = one(made, "better")[["difference", "difference_low", "difference_high"]]
    assert gap.tolist() == pytest.approx([0.1, 0.1, 0.1])
    assert one(made, "better")["high"] - one(made, "better")["low"] > 0.3


def test_differences_take_the_folds_that_both_have():
    "The control has an easy second fold, which the other was not run on"
    made = comparison_table.summary(
        table(rows("control", 0.5, 0.9, fold=None), rows("other", 0.6)), "control"
    )
    assert one(made, "other")["difference"] == pytest.approx(0.1)
    assert one(made, "control")["value"] == pytest.approx(0.7)


def test_each_head_has_its_own_control():
    "Fine-tuned against fine-tuned: 0.9 - 0.6, and probe against probe: 0.5 - 0.4"
    parts = [
        rows("control", 0.4), rows("other", 0.5),
        rows("control", 0.6, head="full"), rows("other", 0.9, head="full"),
    ]  # fmt: skip
    made = comparison_table.summary(table(*parts), "control").set_index(["variant", "head"])
    assert made.loc[("other", "probe"), "difference"] == pytest.approx(0.1)
    assert made.loc[("other", "full"), "difference"] == pytest.approx(0.3)


def test_without_its_control_a_variant_has_no_difference():
    made = comparison_table.summary(table(rows("a", 0.5)), "control")
    assert np.isnan(one(made, "a")["difference"])


def test_a_summary_is_read_as_it_was_written(tmp_path):
    "To four digits, with what it was made of beside it; all studies are read together"
    made = comparison_table.summary(table(rows("a", 0.51239)), "a")
    place = comparison_table.write(made, tmp_path, {"seed": 7})
    assert place == tmp_path / "toy.csv"
    comparison_table.write(made.assign(study="other"), tmp_path, {})
    found = comparison_table.read(tmp_path)
    assert found["study"].tolist() == ["other", "toy"]
    assert found["value"].tolist() == [0.5124] * 2
    more = comparison_table.summary(table(rows("a", 0.5), rows("b", 0.5)), "a")
    comparison_table.write(more, tmp_path, {"seed": 7})
    first = comparison_table.read(tmp_path)
    assert first["study"].tolist() == ["toy", "toy", "other"], "what was asked most comes first"
    assert (tmp_path / "toy.json").read_text().count("seed") == 1
    assert comparison_table.facts(tmp_path) == {"other": {}, "toy": {"seed": 7}}
    with pytest.raises(FileNotFoundError, match="mpm compare STUDY"):
        comparison_table.read(tmp_path / "nowhere")


def test_the_layout_puts_variants_down_and_targets_across():
    "The control without a difference, the other with it"
    made = comparison_table.summary(table(rows("control", 0.5), rows("other", 0.625)), "control")
    shown = comparison_table.layout(made, "auc")
    assert shown.columns.tolist() == [("toy", "MVT", "blocks")]
    assert shown.iloc[:, 0].to_dict() == {
        ("control", "probe"): "0.500",
        ("other", "probe"): "0.625 (+0.125, +0.125 to +0.125)",
    }


def test_the_layout_marks_values_that_rest_on_other_folds():
    "The other was not run on the second, easy fold: its difference can be read, its value cannot"
    parts = rows("control", 0.5, 0.9, fold=None), rows("other", 0.625)
    shown = comparison_table.layout(comparison_table.summary(table(*parts), "control"), "auc")
    assert shown.iloc[:, 0].tolist() == ["0.700", "0.625 (+0.125, +0.125 to +0.125) *"]


def test_a_row_without_a_control_of_its_configuration_is_left_out(capsys):
    "Other settings of both: 0.6 has no control that was trained like it; it is named"
    parts = [rows("control", 0.5), rows("old", 0.6, configuration="b"), rows("new", 0.7)]
    made = comparison_table.summary(table(*parts), "control")
    assert made["variant"].tolist() == ["control", "new"]
    assert "left out" in capsys.readouterr().out.splitlines()[0]
    both = rows("control", 0.2, seed=8, configuration="b")
    made = comparison_table.summary(table(*parts, both), "control")
    assert one(made, "old")["difference"] != one(made, "old")["difference"], "no seed in common"
    assert one(made, "new")["difference"] == pytest.approx(0.2)


def test_a_choice_is_compared_with_the_preset_of_the_same_network():
    "0.9 against 0.7, both of the variant a, and not against the control's 0.5"
    parts = [rows("control", 0.5, head="full"), rows("a", 0.7, head="full")]
    parts.append(rows("a", 0.9, head="full", choice="other"))
    made = comparison_table.summary(table(*parts), "control").set_index(["variant", "choice"])
    assert made.loc[("a", "other"), "difference"] == pytest.approx(0.2)
    assert made.loc[("a", comparison_table.PRESET), "difference"] == pytest.approx(0.2)
    shown = comparison_table.layout(made.reset_index(), "auc")
    assert ("a", "full", "other") in shown.index.tolist()


def test_published_rows_stand_beside_a_control_of_their_configuration():
    "One configuration a column and head; where folds and seeds agree, values differ by as much"
    published = comparison_table.read(ROOT / "data" / "comparisons")
    keys = ["study", "target", "split", "metric", "head"]
    for _, rows in published.groupby(keys):
        assert rows["configuration"].nunique() == 1
        ways = rows.set_index(["variant", "choice"])
        assert ways.index.is_unique
        for (variant, choice), row in ways.iterrows():
            name = "random network" if choice == comparison_table.PRESET else variant
            control = ways.loc[(name, comparison_table.PRESET)]
            if row[["folds", "seeds"]].tolist() == control[["folds", "seeds"]].tolist():
                gap = row["value"] - control["value"]
                assert gap == pytest.approx(row["difference"], abs=2e-4)


def test_no_published_row_balances_regions_where_there_is_one():
    "Under the split by region that variant is the plain one under another name"
    published = comparison_table.read(ROOT / "data" / "comparisons")
    over = published[published["split"].str.startswith("to ")]
    assert len(over) and "regions balanced" not in set(over["variant"])
