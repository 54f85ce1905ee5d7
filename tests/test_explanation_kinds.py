import numpy as np
import pandas as pd

from mpm import explanation_kinds

SPOKEN = pd.DataFrame(
    {"faults": [1.0, 2.0, 8.0, 0.1, -0.5], "shale": [0.1, 0.2, 0.8, 1.0, 5.0]}, dtype=float
)


def test_kinds_are_told_by_shares_not_by_scores():
    "Three cells of the same reasons are one kind, the commonest first, however high they score"
    found = explanation_kinds.kinds(SPOKEN, 2, seed=0)
    assert found.tolist() == [0, 0, 0, 1, 1]


def test_there_are_no_more_kinds_than_different_cells():
    found = explanation_kinds.kinds(SPOKEN.iloc[:3], 5, seed=0)
    assert found.tolist() == [0, 0, 0]


def test_the_table_counts_cells_and_names_leading_layers():
    table = explanation_kinds.kinds_table(
        SPOKEN, np.array([0, 0, 0, 1, 1]), ["west", "west", "east", "east", "east"],
        np.array([True, False, False, False, False]), leading=1,
    )  # fmt: skip
    assert table["cells"].tolist() == [3, 2] and table["known"].tolist() == [1, 0]
    assert table["west (%)"].tolist() == [67, 0]
    assert table["leading layers"].tolist() == ["faults +3.67", "shale +3.00"]
    assert table.index.tolist() == [1, 2]


def test_parts_of_the_mineral_system_are_summed_in_order():
    "Pathway before trap before what has no part"
    values = SPOKEN.assign(rain=1.0, lab=2.0)
    part_of = {"shale": "trap", "faults": "pathway", "lab": "pathway", "rain": None}
    found = explanation_kinds.by_system(values, part_of)
    assert found.columns.tolist() == ["pathway", "trap", "unassigned"]
    assert found["pathway"].tolist() == [3, 4, 10, 2.1, 1.5]


def test_kinds_are_read_against_the_mineral_system():
    "Shares of what speaks for a kind: 3 of 4 is one part alone; what is negative speaks against"
    parts = pd.DataFrame(
        [[1.0, 1.0, 2.0, 0.0], [0.1, 3.0, -0.5, 0.9], [0.0, 2.0, 1.0, 1.0], [-1.0, -1, -1, -1]],
        columns=["source", "pathway", "trap", "unassigned"],
        index=[1, 2, 3, 4],
    )
    assert explanation_kinds.reading(parts) == [
        "kind 1: trap 50%, source 25%, pathway 25% of what speaks for it; source, pathway and trap "
        "all speak for it, as ore needs",
        "kind 2: pathway 75%, unassigned 22% of what speaks for it; it rests on pathway alone; "
        "trap against",
        "kind 3: pathway 50%, trap 25%, unassigned 25% of what speaks for it; no source speaks "
        "for it",
        "kind 4: nothing speaks for it",
    ]
