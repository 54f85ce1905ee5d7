import numpy as np
import pandas as pd
import pytest
from helpers import centre_of, toy_setting

from mpm import cell_facts


@pytest.fixture(scope="module")
def setting():
    return toy_setting()


def words(setting, centre, **spoken):
    spoken = pd.Series({"lab_depth": 0.1, "faults": -0.3, "rock": 0.2} | spoken)
    return cell_facts.reasons(setting, centre, spoken)


def test_reasons_are_said_in_units_and_percentiles(setting):
    "Columns 1 to 19 hold depths of 1 to 19 km: 4 is shallower than 15 of 19"
    table = words(setting, centre_of(setting, 2, 4))
    assert table["layer"].tolist() == ["faults", "rock", "lab_depth"]
    assert table["contribution"].tolist() == [-0.3, 0.2, 0.1]
    assert table["words"].tolist() == [
        "faults 2e+03 m, closer than 85 % of the region: against",
        "rock, here shale, as 47 % of the region: for",
        "LAB depth 4 km, shallower than 79 % of the region: for",
    ]


def test_the_other_side_has_other_words(setting):
    "Deep, far, and granite"
    found = words(setting, centre_of(setting, 18, 18), faults=0.3)["words"].tolist()
    assert found[0].startswith("faults 1.8e+04 m, farther than 90 %")
    assert found[1] == "rock, here granite, as 53 % of the region: for"
    assert "deeper than 89 %" in found[2]


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("moho", "continuous", "deeper"),
        ("sediment_thickness", "continuous", "thicker"),
        ("heat_flow", "continuous", "higher"),
        ("lab_hgm", "derived", "higher"),  # a gradient is not deep
        ("old_faults", "distance", "farther"),
    ],
)
def test_words_fit_the_layer(name, kind, expected):
    found = cell_facts._compared(name, 3.0, np.array([1.0, 2.0, 3.0, 4.0]), kind)
    assert found == f"{expected} than 50 % of the region"


def test_a_value_that_most_cells_share_is_no_extreme():
    "Three of four cells hold 0: neither higher nor lower says it"
    found = cell_facts._compared("black_shale", 0.0, np.array([0.0, 0.0, 0.0, 4.0]), "continuous")
    assert found == "as 75 % of the region"


@pytest.mark.parametrize(
    ("value", "units", "expected"),
    [(0.25, "share", "25 %"), (169, "0.01 %", "1.69 %"), (2, "no units", "2"),
     (3, "10^-5 SI", "3 × 10^-5 SI"),     (92.4, "km", "92.4 km")],
)  # fmt: skip
def test_amounts_are_readable(value, units, expected):
    assert cell_facts._amount(value, units) == expected


def test_missing_evidence_is_said(setting):
    gap = setting.cubes["west"].copy(deep=True)
    gap["evidence"][0, 2, 4] = np.nan
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(setting.cubes, "west", gap)
        found = words(setting, centre_of(setting, 2, 4))["words"].tolist()
    assert found[-1] == "LAB depth missing here: for"


def test_the_nearest_deposits_come_with_their_distance(setting):
    "From row 5, column 7 A lies 2 cells off and B one"
    found = cell_facts.nearest(setting, centre_of(setting, 5, 7), count=2)
    assert found["name"].tolist() == ["B", "A"] and found["km"].tolist() == [1, 2]


def test_a_deposit_is_not_its_own_neighbour(setting):
    "A's cell has B three cells off; B's cell has A's nearest coordinates, not its own"
    assert cell_facts.nearest(setting, centre_of(setting, 5, 5))["name"].tolist() == ["B", "C"]
    found = cell_facts.nearest(setting, centre_of(setting, 5, 8), count=1)
    assert found["name"].tolist() == ["A"] and found["km"].tolist() == [3]


def test_the_class_of_a_cell_is_told_or_that_none_is_known(setting):
    gap = setting.cubes["west"].copy(deep=True)
    gap["evidence"][2:, 2, 4], gap["evidence"][2:, 2, 5] = np.nan, 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(setting.cubes, "west", gap)
        found = [
            cell_facts.class_here(setting, centre_of(setting, 2, c), "rock") for c in (4, 5, 6)
        ]
        told = words(setting, centre_of(setting, 2, 4))["words"].tolist()
    assert found == [None, "", "rock=shale"] and "rock missing here: for" in told


def test_alike_deposits_see_other_ground(setting):
    "Of a cell of A's neither A nor B, whose windows overlap its own; what is shared has one sign"
    centre = centre_of(setting, 5, 5)
    spoken = pd.Series({"lab_depth": 1.0, "faults": 1.0, "rock": 1.0})
    found = cell_facts.alike(setting, centre, spoken)
    assert found["name"].tolist() == ["C"] and -1 <= found["cosine"].iloc[0] <= 1
    other = cell_facts.alike(setting, centre, -spoken)
    parts = [set(filter(None, row["shared"].iloc[0].split(", "))) for row in (found, other)]
    assert parts[0] | parts[1] == {"LAB depth", "faults", "rock"} and not parts[0] & parts[1]


def test_misses_are_the_lowest_of_the_best_cells_while_held_out(setting):
    """A is tested in a fold of 4 cells, where its better cell is third; B and C come first"""
    rows = [("0", 5, 5, 0.1), ("0", 5, 6, 0.4), ("0", 9, 9, 0.6), ("0", 9, 8, 0.5)]
    rows += [("1", 5, 8, 0.3), ("1", 16, 16, 0.2), ("1", 9, 7, 0.2), ("1", 9, 6, 0.1)]
    rows = pd.DataFrame(rows, columns=["fold", "row", "col", "likelihood"]).assign(region=0)
    found = cell_facts.misses(setting, rows, count=2)
    assert found["name"].tolist() == ["A", "C"]
    assert found["held_out"].tolist() == [0.75, 0.75], "of equal scores all count as high"
    assert found["centre"].tolist() == [centre_of(setting, 5, 6), centre_of(setting, 16, 16)]
    assert found["likelihood"].tolist() == setting.likelihood[found["centre"]].tolist()
    assert 0 < found["top"].iloc[1] < found["top"].iloc[0] < 1
    none = rows[rows["row"] != 5]
    assert cell_facts.misses(setting, none)["name"].tolist() == ["C"], "others were never tested"


def test_new_ground_is_far_from_deposits_and_from_itself(setting):
    "The best cell 8 km off every deposit, then the best one 8 km off that, until none is left"
    found = cell_facts.new_ground(setting, far_km=8, count=20)
    windows = setting.fold.windows
    row, col = windows.row[found["centre"]], windows.col[found["centre"]]
    for r, c in [(5, 5), (5, 6), (5, 8), (16, 16)]:
        assert (np.hypot(row - r, col - c) > 8).all()
    between = np.hypot(row[:, None] - row, col[:, None] - col)[np.triu_indices(len(row), 1)]
    assert (between > 8).all() and 1 < len(found) < 20
    assert (row[0], col[0]) == (7, 19) or setting.likelihood[found["centre"].iloc[0]] == max(
        setting.likelihood[found["centre"]]
    )
    assert found["likelihood"].is_monotonic_decreasing and (found["name"] == "").all()
