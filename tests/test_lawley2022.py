"""The published data cube: labels by adjacency, raster cubes, and the study that reads them."""

import json

import h3.api.basic_int as h3
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
import yaml

from mpm import align, artefacts, datacube, hexagons, labels, lawley2022, lawley_sample, study
from mpm.lawley_facts import features

CENTRE = 0x8712E579BFFFFFF
LABELS = ["Training_MVT_Deposit", "Training_MVT_Occurrence"]
LABELS += ["Training_CD_Deposit", "Training_CD_Occurrence"]


@pytest.fixture
def write(tmp_path):
    "Write a table of cells within `size` rings of the Alberta cell, with labels by address"

    def write_labels(size=6, without=(), **marked):
        cells = [cell for cell in h3.grid_disk(CENTRE, size) if cell not in without]
        table = {"H3_Address": pa.array(cells, pa.uint64())}
        for name in LABELS:
            table[name] = pa.array([True if c in marked.get(name, ()) else None for c in cells])
            table[name] = table[name].cast(pa.bool_())
        pq.write_table(pa.table(table), tmp_path / "labels.parquet", row_group_size=20)
        return tmp_path / "labels.parquet"

    return write_labels


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "All that `build` makes of 4000 made-up rows, on cells of 0.05 degrees"
    folder = tmp_path_factory.mktemp("lawley2022")
    lawley_sample.write_sample(folder / "sample.csv", 4000, seed=3)
    names = "Seismic_Moho,Sedimentary_Dictionary,Geology_Lithology_Majority_Merged"
    counts = lawley2022.build(folder / "sample.csv", folder, degrees=0.05, words=names)
    return folder, counts


def ring(cell: int, distance: int) -> list[int]:
    return list(h3.grid_ring(cell, distance))


# labels


def test_cells_that_share_a_corner_are_those_that_touch():
    "So that adjacency gives the neighbours of the published models, which compared corners"
    corners = set(h3.cell_to_vertexes(CENTRE))
    share = {c for c in h3.grid_disk(CENTRE, 3) if corners & set(h3.cell_to_vertexes(c))}
    touching = hexagons.neighbours(np.array([CENTRE], "uint64"))[0].tolist()
    assert share == {CENTRE, *touching}


def test_a_labelled_cell_brings_the_six_around_it(write):
    "One deposit: seven positive cells, one group"
    found = lawley2022.find_deposits(write(Training_MVT_Deposit=[CENTRE]))
    assert found["status"].value_counts().to_dict() == {"neighbour": 6, "deposit": 1}
    assert set(found["h3"]) == {f"{cell:x}" for cell in h3.grid_disk(CENTRE, 1)}
    assert set(found["group"]) == {0} and set(found["type"]) == {"MVT"}
    row = found[found["status"] == "deposit"].iloc[0]
    assert (row["latitude"], row["longitude"]) == (54.497221, -115.018142)


def test_neighbours_that_the_table_lacks_are_left_out(write):
    "A coast: two of the six are sea"
    sea = ring(CENTRE, 1)[:2]
    found = lawley2022.find_deposits(write(without=sea, Training_MVT_Deposit=[CENTRE]))
    assert len(found) == 5 and not set(found["h3"]) & {f"{cell:x}" for cell in sea}


def test_labelled_cells_that_touch_share_a_group(write):
    "Two that touch have ten cells in all, and a third far off has seven of its own"
    beside, far = ring(CENTRE, 1)[0], ring(CENTRE, 5)[0]
    found = lawley2022.find_deposits(
        write(Training_MVT_Deposit=[CENTRE, far], Training_MVT_Occurrence=[beside, CENTRE])
    )
    sizes = found.groupby("group").size().tolist()
    assert sorted(sizes) == [7, 10]
    group = found.set_index("h3")["group"]
    assert group[f"{CENTRE:x}"] == group[f"{beside:x}"] != group[f"{far:x}"]
    status = found.set_index("h3")["status"]
    assert status[f"{CENTRE:x}"] == "deposit" and status[f"{beside:x}"] == "occurrence"


def test_a_neighbour_of_two_groups_is_listed_once(write):
    "Two labelled cells two steps apart share neighbours, and stay two groups"
    other = ring(CENTRE, 2)[0]
    found = lawley2022.find_deposits(write(Training_MVT_Occurrence=[CENTRE, other]))
    assert found["h3"].is_unique and found["group"].nunique() == 2
    assert len(found) == len(set(h3.grid_disk(CENTRE, 1)) | set(h3.grid_disk(other, 1)))


def test_types_are_apart_even_in_one_cell(write):
    "A cell that is both has a row a type, in groups of their own"
    found = lawley2022.find_deposits(
        write(Training_MVT_Deposit=[CENTRE], Training_CD_Occurrence=[CENTRE])
    )
    assert len(found) == 14 and found.groupby("type")["group"].unique().str[0].nunique() == 2
    both = found[found["h3"] == f"{CENTRE:x}"].set_index("type")["status"]
    assert both.to_dict() == {"MVT": "deposit", "CD": "occurrence"}


def test_a_table_without_labels_has_no_deposits(write):
    "Missing is not labelled"
    assert len(lawley2022.find_deposits(write())) == 0


def test_counts_stand_beside_the_published_ones(write):
    "Which are known of MVT alone"
    found = lawley2022.find_deposits(write(Training_MVT_Deposit=[CENTRE]))
    counts = lawley2022.count_labels(found).set_index("type")
    assert counts.loc["MVT"].tolist() == [1, 2027, 7, 9488, 1]
    assert counts.loc["CD", ["labelled", "with neighbours", "groups"]].tolist() == [0, 0, 0]
    assert counts.loc["CD", ["published", "published with neighbours"]].isna().all()


# raster cubes


def test_build_makes_the_table_the_deposits_and_two_cubes(made):
    "And says how many cells are labelled"
    folder, counts = made
    assert {path.name for path in folder.iterdir()} == {
        "sample.csv",
        "datacube.parquet",
        "deposits.csv",
        "north_america.zarr",
        "australia.zarr",
    }
    found = pd.read_csv(folder / "deposits.csv")
    assert list(found) == ["h3", "longitude", "latitude", "type", "status", "group"]
    assert counts["with neighbours"].sum() == len(found)


@pytest.mark.parametrize("continent", ["north_america", "australia"])
def test_a_cube_holds_the_value_of_the_hexagon_under_each_pixel(continent, made):
    "Looked up one by one in the table"
    folder, _ = made
    with xr.open_zarr(folder / f"{continent}.zarr", decode_coords="all") as cube:
        cube.load()
    table = pq.read_table(folder / "datacube.parquet").to_pandas().set_index("H3_Address")
    rows, cols = np.nonzero(cube["valid"].values)
    assert 100 < len(rows) < 2000 and cube.rio.crs == "EPSG:4326"
    for y, x in zip(rows[::20], cols[::20], strict=True):
        place = float(cube.y[y]), float(cube.x[x])
        row, pixel = table.loc[h3.latlng_to_cell(*place, 7)], cube["evidence"][:, y, x]
        assert pixel[0] == pytest.approx(row["Seismic_Moho"], nan_ok=True)
        words = row["Sedimentary_Dictionary"]
        assert np.isnan(pixel[1]) if words is None else pixel[1] == words
        lithology = f"Geology_Lithology_Majority_Merged={row['Geology_Lithology_Majority_Merged']}"
        assert pixel[2:].sum() == 1 and pixel.sel(layer=lithology) == 1
    assert cube["evidence"].where(~cube["valid"]).isnull().all()


def test_a_cube_knows_what_its_layers_are(made):
    "Origin, units and kind of each; source and citation of all; Zarr format 2"
    folder, _ = made
    with xr.open_zarr(folder / "australia.zarr", decode_coords="all") as cube:
        cube.load()
    assert cube["layer"].values[0] == "Seismic_Moho"
    assert cube["units"].values[0] == "not stated" and cube["units"].values[-1] == "1"
    assert cube["kind"].values.tolist() == ["continuous"] + ["binary"] * (cube.sizes["layer"] - 1)
    assert set(cube["origin"].values[2:]) == {"Geology_Lithology_Majority_Merged"}
    assert cube.attrs["source"] == "2021_Table04_Datacube.csv, doi:10.4095/329203"
    assert "doi:10.5066/P970GDD5" in cube.attrs["inputs"]
    assert json.loads((folder / "australia.zarr" / ".zgroup").read_text())["zarr_format"] == 2
    left, bottom, right, top = cube.rio.bounds()
    assert (left, top) == pytest.approx((112.9, -9.5))
    assert bottom <= -43.6 < bottom + 0.05 and right >= 153.6 > right - 0.05


def test_a_cube_marks_the_labelled_hexagons_and_those_around_them(made):
    "As many pixels as have a listed hexagon under their centre"
    folder, _ = made
    found = pd.read_csv(folder / "deposits.csv")
    with xr.open_zarr(folder / "north_america.zarr", decode_coords="all") as cube:
        cube.load()
    rows, cols = np.nonzero(cube["valid"].values)
    places = zip(cube.y.values[rows].tolist(), cube.x.values[cols].tolist(), strict=True)
    under = np.array([f"{h3.latlng_to_cell(*place, 7):x}" for place in places])
    for kind in ("MVT", "CD"):
        listed = np.isin(under, found.loc[found["type"] == kind, "h3"])
        assert listed.any()
        np.testing.assert_array_equal(cube[kind].values[rows, cols], listed)
        assert cube[kind].sum() == listed.sum()


def test_a_label_cannot_become_a_layer(made, tmp_path):
    "Named to `write_cubes` itself, past the feature sets"
    folder, _ = made
    known = pd.read_csv(folder / "deposits.csv")
    for name in ("Label_MVT", "Training_CD_Deposit"):
        with pytest.raises(ValueError, match=f"'{name}' is a label or made from one"):
            lawley2022.write_cubes(
                folder / "datacube.parquet", known, tmp_path, degrees=1, names=[name]
            )
    assert not list(tmp_path.iterdir())


def test_what_is_wrong_is_said_before_the_work(tmp_path):
    "A label, a cell size of nothing, a file that is not there"
    path = tmp_path / "none.csv"
    with pytest.raises(ValueError, match="Label_CD is a label"):
        lawley2022.build(path, tmp_path, words="Label_CD")
    with pytest.raises(ValueError, match="cells of 0 degrees make no map"):
        lawley2022.build(path, tmp_path, degrees=0)
    with pytest.raises(FileNotFoundError, match="none.csv is missing; .* doi:10.4095/329203"):
        lawley2022.build(path, tmp_path)


# the study


@pytest.fixture(scope="module")
def small(made, tmp_path_factory):
    "The study on the made-up table, with grids of a few cells where that has hexagons"
    folder, _ = made
    content = yaml.safe_load(study.find("lawley2022").read_text(encoding="utf-8"))
    content["folder"] = str(folder)
    content["regions"]["north_america"]["bounds"] = [-1200000, 1800000, -1080000, 1940000]
    content["regions"]["australia"]["bounds"] = [140000, -2730000, 260000, -2640000]
    path = tmp_path_factory.mktemp("study") / "small.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return study.load(str(path))


def test_the_study_opens_on_a_table_that_build_made(small):
    "Every layer of the preferred set is there in both regions"
    checked = align.check(small)
    assert len(checked) == 2 * len(features("preferred"))
    assert checked["coverage"].min() > 5


def test_the_study_makes_a_cube_with_neighbourhoods_of_hexagons(small, made):
    "Cells that hold the centre of a listed hexagon are positive, a group one deposit"
    folder, _ = made
    cube, known = labels.add_labels(datacube.build(small, "north_america"), small)
    assert {"binary", "continuous"} == set(cube["kind"].values)
    found = pd.read_csv(folder / "deposits.csv")
    groups = found.loc[found["type"].eq("MVT") & found["latitude"].gt(0), "group"]
    mvt = known[known["type"] == "MVT"]
    assert 0 < mvt["deposit"].nunique() <= groups.nunique()
    inside = cube["valid"].values[mvt["row"], mvt["col"]]
    positive = set(zip(mvt["row"][inside], mvt["col"][inside], strict=True))
    assert set(zip(*np.nonzero(cube["MVT"].values), strict=True)) == positive


def test_the_study_keeps_its_table_below_data_raw():
    "Where its first lines tell the user to build it"
    setup = study.load("lawley2022")
    assert setup.raw == artefacts.home() / "data" / "raw" / "lawley2022"
    assert setup.file(setup.layers[0], "australia").name == "datacube.parquet"
    assert setup.deposits.group == "group" and setup.target("CD").types == ("CD",)
