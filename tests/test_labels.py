import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.spatial.distance import cdist

from mpm import align, artefacts, labels
from mpm.study import Region, Study, Target

WEST, NORTH = 500_000, 5_006_000
SQUARE = {"crs": "EPSG:32633", "resolution": 1000, "bounds": (WEST, NORTH - 6000, 506_000, NORTH)}


@pytest.fixture
def cells() -> xr.DataArray:
    "6 x 6 cells of 1 km"
    return align.grid(Region(**SQUARE))


def table(*places, types=None) -> pd.DataFrame:
    "Deposits at (row, col), fractions meaning off the centre"
    row, col = np.array(places, dtype=float).reshape(-1, 2).T
    return pd.DataFrame(
        {
            "deposit": range(len(places)),
            "type": types or "",
            "x": WEST + 1000 * (col + 0.5),
            "y": NORTH - 1000 * (row + 0.5),
            "row": np.floor(row + 0.5).astype(int),
            "col": np.floor(col + 0.5).astype(int),
        }
    )


# ---- positive cells


def test_radius_of_one_cell_takes_the_cross(cells):
    "Centres within 1 km of a deposit at (2, 3) are its own and the four beside it"
    number = labels.deposit_numbers(table((2, 3)), Target(radius=1000), cells)
    expected = np.full((6, 6), -1)
    expected[1:4, 3] = expected[2, 2:5] = 0
    np.testing.assert_array_equal(number, expected)
    assert number.dtype == "int32"


def test_radius_of_one_and_a_half_cells_takes_the_square(cells):
    "The diagonal is 1.41 km away; the map's edge cuts the square of a corner deposit"
    number = labels.deposit_numbers(table((2, 3), (5, 0)), Target(radius=1500), cells)
    expected = np.full((6, 6), -1)
    expected[1:4, 2:5] = 0
    expected[4:, :2] = 1
    np.testing.assert_array_equal(number, expected)


@pytest.mark.parametrize("radius", [0, 300])
def test_own_cell_is_always_positive(cells, radius):
    "A deposit 0.45 cells off its cell's centre still has that cell, and no other"
    number = labels.deposit_numbers(table((1.45, 2)), Target(radius=radius), cells)
    assert np.argwhere(number == 0).tolist() == [[1, 2]]


def test_cell_between_deposits_goes_to_the_nearest(cells):
    "Deposits in columns 0 and 3: column 1 is 1 km from the first, column 2 from the second"
    for order in ([(2, 0), (2, 3)], [(2, 3), (2, 0)]):
        number = labels.deposit_numbers(table(*order), Target(radius=2000), cells)
        west, east = order.index((2, 0)), order.index((2, 3))
        assert number[2].tolist() == [west, west, east, east, east, east]


@pytest.mark.parametrize("radius", [300, 1300, 1800, 2900])
def test_every_cell_has_the_nearest_deposit_within_the_radius(cells, radius):
    "Against brute force over ten deposits anywhere in their cells"
    rng = np.random.default_rng(3)
    deposits = table(*rng.uniform(-0.49, 5.49, (10, 2)))
    number = labels.deposit_numbers(deposits, Target(radius=radius), cells)
    x, y = np.meshgrid(cells["x"], cells["y"])
    away = np.hypot(
        x[..., None] - deposits["x"].to_numpy(), y[..., None] - deposits["y"].to_numpy()
    )
    rows, cols = np.indices((6, 6))
    own = (rows[..., None] == deposits["row"].to_numpy()) & (
        cols[..., None] == deposits["col"].to_numpy()
    )
    away[(away > radius) & ~own] = np.inf
    expected = np.where(np.isfinite(away.min(axis=-1)), away.argmin(axis=-1), -1)
    np.testing.assert_array_equal(number, expected)


def test_only_the_types_of_the_target_count(cells):
    "Of an MVT and a CD deposit a target takes its own, or both if it names none"
    deposits = table((0, 0), (5, 5), types=["MVT", "CD"])
    for types, expected in [(("MVT",), [0]), (("CD",), [1]), (None, [0, 1]), (("VMS",), [])]:
        number = labels.deposit_numbers(deposits, Target(types=types), cells)
        assert sorted(set(number[number >= 0].tolist())) == expected


def test_cells_of_one_deposit_have_one_number(cells):
    "Deposit 7 is two clusters of cells; between it and deposit 3 the nearer row decides"
    deposits = table((0, 0), (0, 1), (5, 5), (0, 4)).assign(deposit=[7, 7, 7, 3])
    number = labels.deposit_numbers(deposits, Target(radius=2000), cells)
    assert number[0].tolist() == [7, 7, 7, 3, 3, 3]
    assert number[:, 5].tolist() == [3, 3, -1, 7, 7, 7]
    assert set(number.ravel().tolist()) == {-1, 3, 7}


def make_study(folder, rows, targets) -> Study:
    "A region of 6 x 6 cells with deposits at (row, col), and targets"
    study = Study(
        name="mine",
        regions={"here": SQUARE},
        layers=[{"name": "a", "group": "g", "units": "1", "file": "a.tif"}],
        deposits={"file": "d.csv", "x": "x", "y": "y", "crs": "EPSG:32633", "type": "type"},
        targets=targets,
        path=folder / "mine.yaml",
    )
    study.raw.mkdir()
    rows.to_csv(study.raw / "d.csv")
    return study


def make_cube(cells, *invalid) -> xr.Dataset:
    "All cells are valid but those at (row, col)"
    valid = np.ones((6, 6), bool)
    valid[tuple(np.array(invalid, int).reshape(-1, 2).T)] = False
    cube = xr.Dataset({"valid": cells.copy(data=valid)})
    return cube.assign_attrs(region="here")


def test_labels_join_the_cube_at_valid_cells_only(tmp_path, cells):
    "A deposit on an invalid cell keeps its valid neighbours; one without any has no label"
    rows = table((2, 2), (0, 5), (5, 5), types=["MVT", "CD", "CD"])
    targets = {"MVT": {"types": ["MVT"], "radius": 1000}, "CD": {"types": ["CD"]}}
    study, cube = make_study(tmp_path, rows, targets), make_cube(cells, (2, 2), (0, 5))
    labelled, deposits = labels.add_labels(cube, study)
    assert labelled["MVT"].dtype == bool and labelled["MVT_deposit"].dtype == "int32"
    assert np.argwhere(labelled["MVT"].values).tolist() == [[1, 2], [2, 1], [2, 3], [3, 2]]
    assert np.argwhere(labelled["CD_deposit"].values == 2).tolist() == [[5, 5]]
    assert labelled["CD"].sum() == 1 and "CD" not in cube
    np.testing.assert_array_equal(labelled["MVT"], labelled["MVT_deposit"] >= 0)
    assert deposits["type"].tolist() == ["MVT", "CD", "CD"]
    assert deposits.attrs["off_valid"] == {"MVT": 0, "CD": 1}


def test_deposits_without_a_cell_are_counted_and_why(tmp_path, cells):
    "Two lie on cells that are not valid, one has a valid neighbour; two more share a cell"
    rows = table((3, 3), (0, 0), (5, 5), (0, 3), (3.2, 3), (0.3, 3))
    study = make_study(tmp_path, rows, {"all": {"radius": 1000}, "own": {"radius": 0}})
    cube = make_cube(cells, (0, 0), (0, 1), (1, 0), (5, 5))
    labelled, deposits = labels.add_labels(cube, study)
    # off its cell's centre, the fourth is nearest to the cell below, and so is the fifth
    assert sorted(set(labelled["all_deposit"].values.ravel())) == [-1, 0, 2, 3, 4, 5]
    assert np.argwhere(labelled["all_deposit"].values == 2).tolist() == [[4, 5], [5, 4]]
    assert deposits.attrs["off_valid"] == {"all": 1, "own": 2}
    assert deposits.attrs["shadowed"] == {"all": 0, "own": 2}
    artefacts.write_table(deposits, tmp_path / "d.parquet")
    assert pd.read_parquet(tmp_path / "d.parquet").attrs["shadowed"] == {"all": 0, "own": 2}


def test_labels_of_a_lazy_cube_are_those_of_one_in_memory(tmp_path, cells):
    "Valid is computed, evidence is not touched"
    study = make_study(tmp_path, table((2, 2), (4, 1)), {"all": {"radius": 1500}})
    cube = make_cube(cells, (2, 2)).assign(evidence=(("layer", "y", "x"), np.ones((1, 6, 6))))
    lazy, deposits = labels.add_labels(cube.chunk({"y": 4, "x": 3}), study)
    assert lazy["valid"].chunks is None and lazy["evidence"].chunks is not None
    whole, same = labels.add_labels(cube, study)
    xr.testing.assert_identical(lazy.compute(), whole)
    pd.testing.assert_frame_equal(deposits, same)


# ---- likely negatives


@pytest.fixture
def draw():
    "What gives features of 200 cells with gaps; 7 positives, 150 unlabeled"
    rng = np.random.default_rng(5)
    features = rng.normal(size=(200, 6)).astype("float32")
    features[rng.random(features.shape) < 0.1] = np.nan
    order = rng.permutation(200)
    return features.__getitem__, order[:7], order[7:157]


def brute_force(features, positives, cells):
    known = np.nan_to_num(features(np.arange(200)).astype("float64"))
    return cdist(known[cells], known[positives]).sum(axis=1)


def test_summed_distance_by_hand():
    "From (0, 0): 3-4-5 and 6-8-10 triangles sum to 15; a gap counts as 0"
    features = np.array([[0, 0], [3, 4], [6, np.nan], [6, 8]], "float32")
    given = features.__getitem__
    assert labels.summed_distance(given, [1, 3], [0]).tolist() == [15]
    np.testing.assert_allclose(labels.summed_distance(given, [1], [2]), [5])


def test_small_distances_far_from_the_origin_are_exact():
    "3-4-5 triangles at (20000, 20000), where the squares of float32 differ by nothing"
    features = np.array([[0, 0], [3, 4], [-3, -4]], "float32") + 20_000
    assert labels.summed_distance(features.__getitem__, [1, 2], [0]).tolist() == [10]


def test_summed_distance_equals_brute_force(draw):
    np.testing.assert_allclose(labels.summed_distance(*draw), brute_force(*draw), rtol=1e-5)


@pytest.mark.parametrize("quantiles", [(0.75, 1.0), (0.0, 0.25), (0.3, 0.6), (0.0, 1.0)])
def test_candidates_lie_within_the_quantiles(draw, quantiles):
    "Asked for more than there are, it returns every candidate: those of brute force"
    total = brute_force(*draw)
    low, high = np.quantile(total, quantiles)
    expected = np.sort(draw[2][(total >= low - 1e-6) & (total <= high + 1e-6)])
    found = labels.likely_negatives(*draw, quantiles=quantiles, count=10_000, seed=0)
    np.testing.assert_array_equal(found, expected)


def test_negatives_are_unlabeled_cells_once_each(draw):
    features, positives, unlabeled = draw
    found = labels.likely_negatives(features, positives, unlabeled, count=20, seed=0)
    assert len(set(found.tolist())) == 20 and set(found) <= set(unlabeled)
    assert not set(found) & set(positives)
    assert found.tolist() == sorted(found)


def test_seed_decides_the_draw(draw):
    first, again, other = (
        labels.likely_negatives(*draw, count=20, seed=seed) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert first.tolist() != other.tolist()


@pytest.mark.parametrize("chunk", [1, 7, 149, 150])
def test_chunks_do_not_change_the_result(draw, chunk):
    whole = labels.likely_negatives(*draw, count=20, seed=1)
    parts = labels.likely_negatives(*draw, count=20, seed=1, chunk=chunk)
    np.testing.assert_array_equal(parts, whole)


def test_memory_is_a_chunk_times_the_positives(monkeypatch):
    """No product of more than chunk cells with all positives is ever formed

    Nor are features of more cells asked for, and those of each cell once.
    """
    blocks, asked, real = [], [], np.sqrt
    monkeypatch.setattr(np, "sqrt", lambda block: blocks.append(block.shape) or real(block))
    features = np.random.default_rng(0).normal(size=(1000, 3)).astype("float32")

    def given(cells):
        asked.append(cells.tolist())
        return features[cells]

    labels.summed_distance(given, np.arange(5), np.arange(5, 1000), chunk=300)
    assert blocks == [(300, 5), (300, 5), (300, 5), (95, 5)]
    assert [len(cells) for cells in asked] == [5, 300, 300, 300, 95]
    assert sum(asked, []) == list(range(1000))


def test_cells_elsewhere_do_not_matter(draw):
    "What test cells hold changes nothing, because nobody asks for it"
    features, positives, unlabeled = draw
    asked = []
    labels.likely_negatives(
        lambda cells: asked.append(cells) or features(cells), positives, unlabeled, count=20, seed=1
    )
    assert set(np.concatenate(asked)) == {*positives, *unlabeled}


def test_the_whole_range_ranks_nothing(draw):
    "Every cell is a candidate wherever it ranks: the same draw without a feature"
    _, positives, unlabeled = draw
    chosen = {"quantiles": (0.0, 1.0), "count": 20, "seed": 1}
    found = labels.likely_negatives(None, positives, unlabeled, **chosen)
    expected = np.random.default_rng(1).choice(unlabeled, 20, replace=False)
    assert found.tolist() == sorted(expected)


def test_no_positives_are_refused(draw):
    with pytest.raises(ValueError, match="no training positives"):
        labels.likely_negatives(draw[0], np.array([], int), draw[2], count=5, seed=0)


def test_no_unlabeled_cells_are_refused(draw):
    with pytest.raises(ValueError, match="no negatives left: every training cell is positive; use"):
        labels.likely_negatives(draw[0], draw[1], np.array([], int), count=5, seed=0)


def test_a_range_that_holds_no_cell_is_refused(draw):
    "Of two cells one ranks at 0 and one at 1, none in between"
    with pytest.raises(ValueError, match=r"none of 2 .* quantiles \(0.4, 0.6\) .*; widen them"):
        labels.likely_negatives(*draw[:2], draw[2][:2], quantiles=(0.4, 0.6), count=5, seed=0)


@pytest.mark.parametrize("quantiles", [(0.5, 0.5), (0.9, 0.1), (-0.1, 0.5), (0.5, 1.1)])
def test_impossible_quantiles_are_refused(draw, quantiles):
    with pytest.raises(ValueError, match=r"must satisfy 0 <= low < high <= 1"):
        labels.likely_negatives(*draw, quantiles=quantiles, count=5, seed=0)


# ---- tables of known deposits, and counts


@pytest.fixture
def study(tmp_path, monkeypatch) -> Study:
    "Two regions with their tables as notebook 01 writes them"
    monkeypatch.setenv("MPM_PROCESSED", str(tmp_path))
    study = Study(
        name="mine",
        regions={"north": SQUARE, "south": SQUARE},
        layers=[{"name": "a", "group": "g", "units": "1", "file": "a.tif"}],
        deposits={"file": "d.csv", "x": "x", "y": "y", "crs": "EPSG:32633", "type": "type"},
        targets={"MVT": {"types": ["MVT", "Irish"]}, "CD": {"types": ["CD"]}, "any": {}},
        path=tmp_path / "mine.yaml",
    )
    types = {"north": ["MVT", "CD", "Irish"], "south": ["CD", "CD"]}
    for region, own in types.items():
        rows = table(*[(k, k) for k in range(len(own))], types=own)
        artefacts.write_table(rows, labels.deposits_path(study, region))
    return study


def test_known_deposits_are_those_of_the_target(study):
    "A target takes its types, or all deposits if it names none, in every region"
    expected = {"MVT": ([0, 2], []), "CD": ([1], [0, 1]), "any": ([0, 1, 2], [0, 1])}
    for target, numbers in expected.items():
        found = labels.read_deposits(study, target)
        assert list(found) == ["north", "south"]
        assert tuple(own["deposit"].tolist() for own in found.values()) == numbers
    assert labels.read_deposits(study, "CD")["south"]["x"].tolist() == [WEST + 500, WEST + 1500]


def test_missing_deposits_name_the_file_and_its_notebook(study):
    labels.deposits_path(study, "south").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"deposits_south\.parquet is missing; run notebook 01_data"
    ):
        labels.read_deposits(study, "MVT")


def test_deposits_and_positive_cells_are_counted():
    "Deposit 4 has two cells, deposit 0 one: 2 deposits, 3 cells of 8 valid, 37.5 %"
    number = np.array([[4, 4, -1], [-1, 0, -1], [-1, -1, -1]])
    valid = np.ones((3, 3), bool)
    valid[2, 2] = False
    planes = {"valid": valid, "MVT": number >= 0, "MVT_deposit": number}
    planes |= {"CD": np.zeros((3, 3), bool), "CD_deposit": np.full((3, 3), -1)}
    cube = xr.Dataset({name: (("y", "x"), plane) for name, plane in planes.items()})
    found = labels.counts({"north": cube, "south": cube.isel(y=[0])}, ["MVT", "CD"])
    assert found.columns.tolist() == [
        "region",
        "target",
        "deposits",
        "positive cells",
        "prevalence (%)",
    ]
    assert found.to_numpy().tolist() == [
        ["north", "MVT", 2, 3, 37.5],
        ["north", "CD", 0, 0, 0],
        ["south", "MVT", 1, 2, 66.667],
        ["south", "CD", 0, 0, 0],
    ]


def test_a_sample_holds_every_positive_cell_and_counts_for_all():
    "Cells 10 to 29, of which 12 and 20 are positive; each of 6 others stands for 3"
    index, positive = np.arange(10, 30), np.isin(np.arange(40), [3, 12, 20])
    cells, weight = labels.sample_cells(index, positive, 6, seed=1)
    assert len(cells) == 8 and (np.diff(cells) > 0).all() and set(cells) < set(index)
    assert cells[positive[cells]].tolist() == [12, 20]
    assert weight.tolist() == [1.0 if positive[cell] else 3.0 for cell in cells]
    assert not np.array_equal(cells, labels.sample_cells(index, positive, 6, seed=2)[0])
    cells, weight = labels.sample_cells(index, positive, 99, seed=1)
    assert cells.tolist() == index.tolist() and set(weight) == {1.0}
    cells, weight = labels.sample_cells(np.array([12, 20]), positive, 5, seed=1)
    assert (cells.tolist(), weight.tolist()) == ([12, 20], [1.0, 1.0])
