"""Tables of results: made from scores, and the same as what committed notebooks and files say."""

import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from toy_notebooks import home  # noqa: F401  (a fixture)

from mpm import artefacts, comparison_table, results, study_scores
from mpm.plots import METHODS
from mpm.score_store import SCORE_COLUMNS
from mpm.study import load

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
REST = (ROOT / "data" / "scores" / "README.md").read_text(encoding="utf-8")
SCORES = ["blocks auc", "blocks average_precision", "random auc", "random average_precision"]


def table_of(text, name):
    """Return the rows of a table of a page, without its head."""
    between = re.search(rf"<!-- results {name} -->\n(.*?)<!-- end -->", text, re.DOTALL)[1]
    return [line[2:-2].split(" | ") for line in between.strip().splitlines()][2:]


class Tables(HTMLParser):
    """Rows of the tables in a text: ("th" or "td", content) for each cell."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.open = [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        "A row or a cell begins"
        if tag == "tr":
            self.rows.append([])
        self.open = tag in ("th", "td")
        if self.open:
            self.rows[-1].append((tag, ""))

    def handle_data(self, data):
        "Of the cell that is open"
        if self.open:
            self.rows[-1][-1] = (self.rows[-1][-1][0], data.strip())

    def handle_endtag(self, tag):
        "What follows belongs to no cell"
        self.open = False


def prevalence_in_notebook_05():
    """Return the printed prevalence by split."""
    notebook = nbformat.read(ROOT / "notebooks" / "05_evaluation.ipynb", as_version=4)
    printed = [each.get("text", "") for cell in notebook.cells for each in cell.get("outputs", [])]
    (text,) = [text for text in printed if text.startswith("metric") and "prevalence" in text]
    return {row[0]: float(row[-1]) for row in map(str.split, text.splitlines()[2:])}


def scores_of_notebook_05():
    """Return what was printed, by (split and metric, method); without a split it is of blocks."""
    notebook = nbformat.read(ROOT / "notebooks" / "05_evaluation.ipynb", as_version=4)
    found = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "evaluation.score_table" not in cell.source or "text/html" not in output.get(
                "data", {}
            ):
                continue
            if cell["id"] == "real-ground-table":  # of other studies
                continue
            head, _, *rows = Tables(output["data"]["text/html"]).rows
            metrics = [content for _, content in head if content and content != "metric"]
            split = "blocks"
            for row in rows:
                names = [content for tag, content in row if tag == "th"]
                split = names[0] if len(names) == 2 else split
                values = [content for tag, content in row if tag == "td"]
                for metric, value in zip(metrics, values, strict=True):
                    found[f"{split} {metric}", names[-1]] = value
    return found


def test_the_readme_states_what_notebook_05_printed():
    "Each score and interval of the committed notebook; the truth first, then the best"
    printed = scores_of_notebook_05()
    rows = table_of(README, "demo")
    names = {label: name for name, label in METHODS.items()}
    *methods, chance = [(names.get(label, label), scores) for label, *scores in rows]
    assert {name for name, _ in methods} == set(results.SHOWN) and methods[0][0] == "oracle"
    for name, scores in methods:
        assert scores == [printed[key, METHODS[name]] for key in SCORES]
    precision = [float(scores[1].split()[0]) for _, scores in methods[1:]]
    assert precision == sorted(precision, reverse=True)
    assert chance[0] == "any ranking at random" and chance[1][0] == chance[1][2] == "0.500"
    for split, share in zip(results.SPLITS, chance[1][1::2], strict=True):
        assert float(share) == pytest.approx(prevalence_in_notebook_05()[split], abs=6e-4)


def test_what_the_readme_says_of_the_demo_is_so():
    "Its sentences follow from the table; a new run that ends otherwise needs other sentences"
    text = " ".join(README.split())
    assert (
        "boosted trees score at least as well as the network, and so do random forests that" in text
    )
    assert "nothing comes near the truth" in text
    table = {
        label: [float(text.split()[0]) for text in row] for label, *row in table_of(README, "demo")
    }
    mae, truth = table["MAE, fine-tuned"], table["oracle (true probability)"]
    trees = ["gradient boosting", "gradient boosting, window statistics"]
    for method in [*trees, "random forest, window statistics"]:
        assert all(own >= other for own, other in zip(table[method][:2], mae[:2], strict=True))
    assert max(row[1] for label, row in table.items() if "oracle" not in label) < truth[1] / 2
    assert table["distance to a known deposit"][2] > 0.95
    assert mae[1] > table["ViT from scratch"][1]


def test_what_pretraining_adds_is_what_the_comparisons_hold():
    "Random and pretrained weights under blocks, and which gains leave zero out of their interval"
    assert results._put(REST, "real", results.of_real(), results.REST) == REST
    rows = table_of(REST, "real")
    assert [row[0] for row in rows] == [
        *["us_midcontinent_mini, MVT_CD"] * 2,
        *["znpb, CD", "znpb, CD"],
        *["znpb, CD without australia", "znpb, CD without australia"],
        *["znpb, MVT", "znpb, MVT"],
    ]
    sure = {}
    for name, label, *given, gain in rows:
        study, target = name.split(", ")
        table = pd.read_csv(ROOT / "data" / "comparisons" / f"{study}.csv")
        keys = {"target": target, "split": "blocks", "head": "full", "seeds": 3}
        keys["choice"] = comparison_table.PRESET
        keys["metric"] = {v: k for k, v in results.METRICS.items()}[label]
        own = table[(table[list(keys)] == pd.Series(keys)).all(axis=1)].set_index("variant")
        for variant, text in zip(["random network", "patches masked"], given, strict=True):
            value, low, high = own.loc[variant, ["value", "low", "high"]]
            assert text == f"{value:.3f} ({low:.3f} to {high:.3f})"
        value, low, high = own.loc[
            "patches masked", ["difference", "difference_low", "difference_high"]
        ]
        assert gain == f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
        if low > 0 or high < 0:
            sure[name, label] = 1 if low > 0 else -1
    assert sure == {
        ("us_midcontinent_mini, MVT_CD", "AUC"): -1,
        ("znpb, CD without australia", "AUC"): 1,
        ("znpb, MVT", "AP"): 1,
    }
    text = " ".join(README.split())
    assert "pretraining loses in the Midcontinent and gains average precision on `znpb`" in text
    assert "pretraining loses in the Midcontinent. On `znpb` it gains average precision on" in REST
    demo = pd.read_csv(ROOT / "data" / "comparisons" / "demo.csv").query("head == 'full'")
    demo = demo[(demo["variant"] == "patches masked") & (demo["split"] == "blocks")]
    demo = demo[demo["choice"] == comparison_table.PRESET]
    assert (demo["seeds"] == 3).all()
    assert (demo["difference_low"] < 0).all() and "and nothing sure over three seeds" in REST
    frozen = {}
    for study in ("us_midcontinent_mini", "demo"):
        table = pd.read_csv(ROOT / "data" / "comparisons" / f"{study}.csv")
        longer = (table["variant"] == "five times the steps") & (table["head"] == "frozen")
        frozen[study] = table[longer & (table["metric"] == "auc") & (table["split"] == "blocks")]
    assert "does gain on the first study, and loses on one of the demo's two targets" in REST
    assert (frozen["us_midcontinent_mini"]["difference_low"] > 0).all()
    assert len(frozen["demo"]) == 2 and (frozen["demo"]["difference_high"] < 0).sum() == 1
    assert (frozen["demo"]["difference_low"] < 0).all()


def test_what_notebook_03_says_of_its_departures_is_what_the_comparisons_hold():
    "The published way, each departure alone, and negatives at random"
    tables = [
        pd.read_csv(ROOT / "data" / "comparisons" / f"{study}.csv").query("head == 'full'")
        for study in ("demo", "us_midcontinent_mini", "znpb")
    ]
    other = pd.concat(tables).query("choice != @comparison_table.PRESET")
    assert (other[["folds", "seeds"]] == 3).all(axis=None) and len(other) == 3 * 10 + 6
    other["sure"] = (other["difference_low"] > 0) * 1 - (other["difference_high"] < 0) * 1
    sure = other.set_index(["study", "choice", "target", "metric"])["sure"]
    notebook = nbformat.read(ROOT / "notebooks" / "03_fine_tuning.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells)

    def told_apart(choice):
        own = sure.xs(choice, level="choice")
        return own[own != 0].to_dict()

    assert (
        "worse for sure on both targets of `znpb`, and better for sure nowhere; by AUC no" in text
    )
    assert told_apart("as published") == {
        ("znpb", "CD without australia", "average_precision"): -1,
        ("znpb", "MVT", "average_precision"): -1,
    }
    assert "under our head makes no difference that these deposits can tell" in text
    assert told_apart("negatives from the top quarter") == {}
    assert (
        "for sure on `us_midcontinent_mini` and worse for sure, by AUC, on the demo's MVT" in text
    )
    assert told_apart("head sees CLS") == {
        ("us_midcontinent_mini", "MVT_CD", "auc"): 1,
        ("us_midcontinent_mini", "MVT_CD", "average_precision"): 1,
        ("demo", "MVT", "auc"): -1,
    }
    assert "these gain on CD and lose on MVT, both for sure" in text
    precise = sure.xs("negatives at random", level="choice").xs("average_precision", level="metric")
    assert precise.droplevel("study").to_dict() == {"CD": 1, "MVT": -1, "MVT_CD": 0}


def test_what_notebook_06_says_of_clastic_deposits_is_what_is_kept():
    "The score of the comparison; the layers that lead with network and trees, and the kinds"
    notebook = nbformat.read(ROOT / "notebooks" / "06_explanation.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells)
    table = pd.read_csv(ROOT / "data" / "comparisons" / "znpb.csv")
    keys = {"target": "CD", "split": "blocks", "head": "full", "variant": "patches masked"}
    keys |= {"metric": "auc", "seeds": 3}
    (row,) = table[(table[list(keys)] == pd.Series(keys)).all(axis=1)].itertuples()
    assert "ranked held-out blocks better than chance, with fine-tuning of that time" in text
    assert row.low > 0.5
    kept = pd.read_csv(ROOT / "data" / "explanations" / "znpb_CD.csv")
    size = kept[kept["topic"] == "importance"].astype({"value": float})
    size = size.pivot(index="row", columns="what", values="value")
    network, trees = (
        size[name].nlargest(2).index.tolist()
        for name in ("network (Integrated Gradients)", "gradient boosting (SHAP)")
    )
    assert network == ["lab_sl2013sv_hgm", "sediment_thickness"]
    assert trees == ["heat_flow", "craton_edge_distance"]
    third = kept[(kept["topic"] == "kinds") & (kept["row"] == "3")].set_index("what")["value"]
    assert third["australia (%)"] == "100" and third["leading layers"].startswith("geoid")


def test_what_was_scored_on_real_ground_is_what_is_kept():
    "The table is that of data/scores, and the sentences below it hold there"
    assert results._put(REST, "studies", results.of_studies(), results.REST) == REST
    scores = study_scores.read()
    auc = scores[scores["metric"] == "auc"].set_index(["study", "split", "method"])["value"]
    blocks = {study: auc[study, "blocks"].drop("shuffled_labels") for study in results.REAL}
    assert blocks["us_midcontinent_mini"].idxmax() == "mae_features_logistic"
    first, second, *_ = blocks["znpb"].sort_values(ascending=False).index
    assert (first, second) == ("pu_bagging", "gradient_boosting_window")
    forests = blocks["znpb"][["random_forest", "random_forest_window"]]
    assert (forests < blocks["znpb"]["weights_of_evidence"]).all()
    assert auc["znpb", "region"].idxmax() == "logistic_regression"
    assert auc["znpb", "blocks"].max() < 0.75 < 0.97 < auc["znpb", "random"]["mae"]


def test_what_the_readme_says_of_real_ground_is_so():
    "Each number of its paragraph, and what the words beside them claim"
    text = " ".join(README.split())
    table = study_scores.read().set_index(["study", "split", "method", "metric"]).sort_index()

    def of(study, split, method, metric="auc"):
        return table.loc[(study, split, method, metric), ["value", "low", "high"]].to_list()

    own = "us_midcontinent_mini"
    value, low, high = of(own, "blocks", "mae_features_logistic")
    assert f"leads under blocks, AUC {value:.3f} ({low:.3f} to {high:.3f})" in text
    value, low, high = of(own, "blocks", "mae")
    assert f"that network has {value:.3f} ({low:.3f} to {high:.3f})" in text
    assert f"where random cells promise {of(own, 'random', 'mae')[0]:.3f};" in text
    assert "with another seed its lead over the same network from scratch is lost" in text
    (lost,) = re.findall(r"^\| 9 \|.*?\| (\S+) \((\S+) to (\S+)\) \|", REST, re.MULTILINE)
    assert max(map(float, lost)) < 0
    assert "with a dozen deposits a fold" in text
    assert 11 <= of("znpb", "blocks", "mae", "deposits")[0] <= 13
    bagged, boosted = (
        of("znpb", "blocks", name)[0] for name in ("pu_bagging", "gradient_boosting_window")
    )
    assert f"lead under blocks with {bagged:.3f} and {boosted:.3f}" in text
    value, low, high = of("znpb", "blocks", "mae")
    assert f"hardly better than chance, {value:.3f} ({low:.3f} to {high:.3f})" in text
    assert 0.5 < low < 0.55
    assert f"random cells promise it {of('znpb', 'random', 'mae')[0]:.3f}" in text


@pytest.fixture
def readme(home, monkeypatch):  # noqa: F811
    """Two pages with places for tables, scores of three methods, and one comparison."""
    monkeypatch.setattr(results, "SHOWN", ("oracle", "mae", "random_forest"))
    monkeypatch.setattr(results, "REAL", ("own",))
    monkeypatch.setattr(results, "SHOWN_OF_REAL", ("mae", "random_forest"))
    place = home / "README.md"
    place.write_text("A\n<!-- results tiny -->\nold\n<!-- end -->\nB\n")
    rest = home / "data" / "scores" / "README.md"
    rest.parent.mkdir()
    rest.write_text(
        "C\n<!-- results studies -->\n<!-- end -->\n<!-- results real -->\n<!-- end -->\n"
    )
    values = {"oracle": 0.9, "mae": 0.2, "random_forest": 0.4}
    rows = [
        (split, "mean", method, metric, value, value - 0.1, value + 0.1)
        for split in results.SPLITS
        for method, value in values.items()
        for metric in ["auc", "average_precision", "prevalence"]
    ]
    rows.append(("blocks", "0", "mae", "auc", 0.0, 0.0, 0.0))
    columns = ["split", "fold", "method", "metric", "value", "low", "high"]
    table = pd.DataFrame(rows, columns=columns).assign(study="tiny", target="MVT", seed=7)
    path = load("tiny").processed / "scores.parquet"
    path.parent.mkdir(parents=True)
    artefacts.write_table(table[SCORE_COLUMNS], path)
    keys = {"study": "own", "target": "MVT", "split": "blocks", "metric": "auc", "head": "full"}
    keys |= {"choice": "as the preset"}
    first = keys | {"variant": "random network", "value": 0.7, "low": 0.65, "high": 0.75}
    first |= {"difference": 0.0, "difference_low": 0.0, "difference_high": 0.0}
    other = first | {"variant": "patches masked", "value": 0.8, "difference": 0.1}
    real = {"study": "own", "target": "CD", "seed": 7, "metric": "auc", "low": 0.1, "high": 0.9}
    scored = [("blocks", "mae", 0.6), ("random", "mae", 0.8), ("blocks", "random_forest", 0.7)]
    scored += [("latitude", "mae", 0.5), ("blocks", "pu_bagging", 0.65)]
    pd.DataFrame(
        [real | dict(zip(["split", "method", "value"], each, strict=True)) for each in scored]
    ).to_csv(home / "data" / "scores" / "own_CD.csv", index=False)
    (home / "data" / "comparisons").mkdir()
    probe = first | {"head": "probe", "value": 0.1}
    pd.DataFrame([first, other, probe]).to_csv(
        home / "data" / "comparisons" / "own.csv", index=False
    )
    return place


def test_tables_replace_what_stood_there(readme):
    "Text around them stays; written again, nothing changes"
    rest = readme.parent / "data" / "scores" / "README.md"
    assert results.write("tiny") == [readme.resolve(), rest.resolve()]
    text, more = readme.read_text(), rest.read_text()
    assert table_of(text, "tiny") == [
        [METHODS[name], *[f"{value:.3f} ({value - 0.1:.3f} to {value + 0.1:.3f})"] * 4]
        for name, value in {"oracle": 0.9, "random_forest": 0.4, "mae": 0.2}.items()
    ] + [["any ranking at random", "0.500", "0.900", "0.500", "0.900"]]
    interval = ["0.700 (0.650 to 0.750)", "0.800 (0.650 to 0.750)", "+0.100 (+0.000 to +0.000)"]
    assert table_of(more, "real") == [["own, MVT", "AUC", *interval]]
    assert "| method | own, CD: blocks | own, CD: random |" in more
    assert table_of(more, "studies") == [
        ["random forest", "0.700 (0.100 to 0.900)", ""],
        ["MAE, fine-tuned", "0.600 (0.100 to 0.900)", "0.800 (0.100 to 0.900)"],
    ]
    assert text.startswith("A\n") and "\nB\n" in text and "old" not in text
    results.write("tiny")
    assert (readme.read_text(), rest.read_text()) == (text, more)


def test_scores_that_are_missing_are_named(readme):
    "Of another seed, with the command that makes them; the README stays as it was"
    before = readme.read_text()
    with pytest.raises(ValueError, match="no auc of oracle under blocks for MVT, seed 8.*--seed 8"):
        results.write("tiny", seed=8)
    (load("tiny").processed / "scores.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="scores.parquet is missing; run notebook 05"):
        results.write("tiny")
    assert readme.read_text() == before


def test_a_readme_without_a_place_is_refused(readme):
    "Neither none nor two"
    readme.write_text("nothing\n")
    with pytest.raises(ValueError, match="README.md needs a line `<!-- results tiny -->`, once"):
        results.write("tiny")
    rest = readme.parent / "data" / "scores" / "README.md"
    readme.write_text("<!-- results tiny -->\n<!-- end -->\n")
    whole = rest.read_text()
    rest.write_text("nothing\n")
    with pytest.raises(
        ValueError, match="data/scores/README.md needs a line `<!-- results studies"
    ):
        results.write("tiny")
    assert readme.read_text() == "<!-- results tiny -->\n<!-- end -->\n"  # none or both
    rest.write_text(whole)
    readme.write_text("<!-- results tiny -->\n<!-- end -->\n" * 2)
    with pytest.raises(ValueError, match="once"):
        results.write("tiny")
