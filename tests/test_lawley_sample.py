"""The made-up table has the columns, quirks and classes of the published one."""

import csv

import h3.api.basic_int as h3
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mpm import hexagons, lawley_sample, lawley_table
from mpm.lawley_facts import columns, merged

ROWS = 3000


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    place = tmp_path_factory.mktemp("sample") / "sample.csv"
    lawley_sample.write_sample(place, ROWS, seed=1)
    return place


@pytest.fixture(scope="module")
def table(path):
    out = path.with_suffix(".parquet")
    assert lawley_table.write_parquet(path, out) == ROWS
    return pq.read_table(out)


def test_one_seed_makes_one_file(path, tmp_path):
    "Another seed another"
    for seed, same in ((1, True), (2, False)):
        lawley_sample.write_sample(tmp_path / "again.csv", ROWS, seed=seed)
        assert ((tmp_path / "again.csv").read_bytes() == path.read_bytes()) is same


def test_the_header_is_damaged_as_published(path):
    "Read as latin-1 the first name has the byte order mark and quotes in it"
    with path.open(encoding="latin-1", newline="") as file:
        rows = csv.reader(file)
        header, first = next(rows), next(rows)
    assert header[0] == 'ï»¿"H3_Address"' and header[1:] == list(columns())[1:]
    assert len(first) == 97 and first[2].startswith("POLYGON ((-")


def test_neither_encoding_fits_the_whole_file(path):
    "As latin-1 some names are wrong, as UTF-8 the file cannot be read"
    text = path.read_bytes()
    assert b"Qu\xe9bec" in text and b"Qu\xc3\xa9bec" in text
    with pytest.raises(UnicodeDecodeError):
        text.decode("utf-8")


def test_cells_fill_a_patch_on_each_continent(table):
    "All valid, none twice, seven of ten in North America, and most touch six others"
    cells = table["H3_Address"].to_numpy()
    assert all(h3.is_valid_cell(cell) for cell in cells.tolist())
    assert len(set(cells.tolist())) == ROWS
    latitude = table["Latitude_EPSG4326"].to_numpy()
    assert (latitude > 0).sum() == 0.7 * ROWS
    rows = hexagons.find(hexagons.neighbours(cells), cells)
    assert (rows >= 0).mean() > 0.9
    at = np.array([h3.cell_to_latlng(cell) for cell in cells.tolist()])
    np.testing.assert_allclose(latitude, at[:, 0], atol=1e-6)


def test_a_large_patch_goes_around_pentagons():
    "Every cell once and valid, in the base cell with a pentagon off Western Australia"
    cells = lawley_sample.patch(h3.latlng_to_cell(-23.7, 113.2, 7), 60_000)
    assert len(np.unique(cells)) == 60_000
    assert all(h3.is_valid_cell(cell) for cell in cells[::37].tolist())


def test_values_are_missing_about_as_often_as_published(table):
    "A quarter of paleolatitudes, no passive margin, none of the labels"
    missing = {name: table[name].null_count / ROWS for name in table.schema.names}
    assert missing["Geology_Paleolatitude_Period_Maximum"] == pytest.approx(0.246, abs=0.03)
    assert missing["Geology_PassiveMargin_Proximity"] == 0
    assert missing["HeatFlow"] == pytest.approx(0.01, abs=0.008)
    assert missing["Training_MVT_Deposit"] == missing["Label_CD"] == 0


def test_classes_are_those_of_the_published_table(table):
    "All of the lithologies occur in a patch as large as this or larger"
    for name, (origin, classes) in merged().items():
        assert set(table[origin].unique().drop_null().to_pylist()) <= set(classes)
        assert set(table[name].unique().drop_null().to_pylist()) <= set(classes.values())
    assert len(table["Geology_Lithology_Majority"].unique()) > 20
    assert any("," in text for text in table["Crust1_Type"].unique().drop_null().to_pylist())


def test_labels_are_few_and_clustered(table):
    "Most labelled cells touch another one"
    labelled = table.filter(pc.field("Label_MVT"))["H3_Address"].to_numpy()
    assert 10 < len(labelled) < 0.1 * ROWS
    touching = hexagons.find(hexagons.neighbours(labelled), labelled) >= 0
    assert touching.any(axis=1).mean() > 0.7
    assert pc.sum(table["Training_MVT_Deposit"]).as_py() < len(labelled) / 2


def test_numbers_have_the_precision_of_the_published_ones(table):
    "Neighbours have like values: the fields are smooth"
    cells, moho = table["H3_Address"].to_numpy(), table["Terrane_Proximity"].to_numpy()
    rows = hexagons.find(hexagons.neighbours(cells)[:, 0], cells)
    near = moho[rows[rows >= 0]] - moho[rows >= 0]
    assert np.std(near) < 0.3 * np.std(moho)
