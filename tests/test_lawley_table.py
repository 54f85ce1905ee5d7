"""From the published CSV to Parquet: quirks, types, merged columns, and where a mistake lies."""

import h3.api.basic_int as h3
import pyarrow.parquet as pq
import pytest

from mpm import hexagons, lawley_table
from mpm.lawley_facts import TEXT, column_type, columns

CELLS = [0x8712E579BFFFFFF, 0x8712E579AFFFFFF, 0x8712E56B4FFFFFF]
GEOMETRY = '"POLYGON ((-115.0314 54.5077, -115.0393 54.4961, -115.0314 54.5077))"'


def line(cell: int, **values: str) -> list[str]:
    "A row as it stands in the file: numbers 1.5, text quoted, nothing present"
    known = {"H3_Address": f'"{cell:x}"', "H3_Resolution": "7", "H3_Geometry": GEOMETRY}
    row = []
    for name in columns():
        kind = str(column_type(name))
        usual = '"Absent"' if kind == "bool" else "1.5" if kind in ("float", "double") else ""
        row.append(values.get(name, known.get(name, usual)))
    return row


def lines(*changes: dict) -> list[list[str]]:
    "A row for each cell, with changes"
    return [line(cell, **values) for cell, values in zip(CELLS, changes, strict=False)]


@pytest.fixture
def write(tmp_path):
    "Write rows as a CSV with the published header"

    def write_csv(rows, *, header=None, encoding="latin-1", end="\n"):
        header = header or b"\xef\xbb\xbf" + ",".join(f'"{name}"' for name in columns()).encode()
        text = "".join(",".join(row) + end for row in rows)
        path = tmp_path / "cube.csv"
        path.write_bytes(header + end.encode() + text.encode(encoding))
        return path

    return write_csv


@pytest.fixture
def convert(tmp_path):
    "Convert a CSV and read columns back as lists"

    def convert_csv(path, *names):
        out = tmp_path / "cube.parquet"
        lawley_table.write_parquet(path, out)
        found = pq.read_table(out)
        assert found.schema.names == pq.read_schema(out).names
        return [found[name].to_pylist() for name in names]

    return convert_csv


# header

NAMES = ",".join(f'"{name}"' for name in columns())
BARE = ",".join(columns())


@pytest.mark.parametrize(
    "header",
    [
        b"\xef\xbb\xbf" + NAMES.encode(),  # the published one
        NAMES.encode(),
        BARE.encode(),
        ("ï»¿" + BARE).encode("latin-1"),
        ('"ï»¿""H3_Address""",' + BARE.split(",", 1)[1]).encode("utf-8"),  # saved by a reader
    ],
    ids=["mark and quotes", "quotes", "bare", "mark", "mark as letters"],
)
def test_the_first_column_is_found_however_the_mark_damaged_it(header, write):
    "A byte order mark before a quoted name, and what programs make of it"
    assert lawley_table.read_header(write([], header=header)) == list(columns())


def test_a_missing_column_is_an_error_that_gives_the_nearest_names(write):
    "Both the missing and the unfamiliar one are named"
    header = NAMES.replace("Seismic_Moho_GEMMA", "Seismic_Moho_GEMA").encode()
    with pytest.raises(ValueError) as error:
        lawley_table.read_header(write([], header=header))
    assert "cube.csv: column 'Seismic_Moho_GEMMA' is missing (nearest: Seismic_Moho_GEMA" in str(
        error.value
    )
    assert "column 'Seismic_Moho_GEMA' is unfamiliar (nearest: Seismic_Moho_GEMMA" in str(
        error.value
    )


def test_a_column_twice_or_too_many_is_an_error(write):
    "Which of the two would count?"
    with pytest.raises(ValueError, match="column 'HeatFlow' is there twice"):
        lawley_table.read_header(write([], header=(NAMES + ',"HeatFlow"').encode()))
    with pytest.raises(ValueError, match="column 'Notes' is unfamiliar$"):
        lawley_table.read_header(write([], header=(NAMES + ',"Notes"').encode()))


@pytest.mark.parametrize("header", [b"name;x;y", NAMES.replace(",", ";").encode(), b""])
def test_another_file_is_told_from_the_cube(header, write, tmp_path):
    "No list of 97 missing columns"
    (tmp_path / "cube.csv").write_bytes(header)
    with pytest.raises(ValueError, match="is not the data cube: no column of it is in") as error:
        lawley_table.read_header(tmp_path / "cube.csv")
    assert len(str(error.value)) < 300


# values


def test_values_arrive_in_their_types(write, convert):
    "Addresses as numbers, missing values as missing"
    changes = {"Seismic_Moho": "35.25", "HeatFlow": "NA", "Longitude_EPSG4326": "-115.018142"}
    rows = lines(changes, {"Seismic_Moho": "", "HeatFlow": "nan"})
    found = convert(
        write(rows), "H3_Address", "H3_Resolution", "Longitude_EPSG4326", "Seismic_Moho", "HeatFlow"
    )
    assert found == [CELLS[:2], [7, 7], [-115.018142, 1.5], [35.25, None], [None, None]]


def test_present_and_absent_become_booleans(write, convert):
    "Blank stays missing"
    rows = lines(
        {"Terrane_Contact": '"Present"'}, {"Terrane_Contact": "Absent"}, {"Terrane_Contact": ""}
    )
    assert convert(write(rows), "Terrane_Contact") == [[True, False, None]]


def test_text_may_hold_commas_and_accents_in_either_encoding(write, convert):
    "The file mixes latin-1 and UTF-8: the second row holds UTF-8 bytes"
    rows = lines(
        {"Province_Majority": '"Québec"', "Crust1_Type": '"orogen, thick upper crust"'},
        {"Province_Majority": '"Québec"'.encode().decode("latin-1"), "Crust1_Type": "island arc"},
        {"Province_Majority": '"Alberta"', "Crust1_Type": ""},
    )
    found = convert(write(rows), "Province_Majority", "Crust1_Type")
    assert found == [
        ["Québec", "Québec", "Alberta"],
        ["orogen, thick upper crust", "island arc", None],
    ]


def test_columns_may_stand_in_another_order_and_lines_end_otherwise(write, convert):
    "They go by name; the file keeps the published order"
    rows = [row[::-1] for row in lines({"Seismic_Moho": "30"}, {"Seismic_Moho": "31"})]
    path = write(rows, header=",".join(list(columns())[::-1]).encode(), end="\r\n")
    assert convert(path, "H3_Address", "Seismic_Moho") == [CELLS[:2], [30, 31]]


def test_classes_are_merged_beside_the_published_ones(write, convert):
    "A missing class stays missing"
    rows = lines(
        {"Geology_Lithology_Majority": "Metamorphic_Marble"},
        {
            "Geology_Lithology_Majority": '"Sedimentary_Chemical"',
            "Geology_Period_Minimum_Majority": "Eoarchean",
        },
    )
    names = [f"Geology_Lithology_Majority{end}" for end in ("", "_Merged")]
    found = convert(write(rows), *names, "Geology_Period_Minimum_Majority_Merged")
    assert found[0] == ["Metamorphic_Marble", "Sedimentary_Chemical"]
    assert found[1] == ["Sedimentary_Chemical"] * 2
    assert found[2] == [None, "Neoarchean"]


def test_a_dictionary_is_present_if_one_of_its_keywords_is(write, convert):
    "Missing if one is missing and none is present; keywords of no dictionary do not count"
    words = [f"Geology_Dictionary_{word}" for word in ("Calcareous", "Carbonaceous", "Evaporitic")]
    one, unknown = {words[0]: "Present", words[1]: ""}, {words[0]: "Absent", words[1]: ""}
    rows = lines(one, unknown, {words[2]: "Present"})
    assert convert(write(rows), "Sedimentary_Dictionary") == [[True, None, False]]


def test_a_label_is_a_deposit_or_an_occurrence(write, convert):
    "Of its own type"
    rows = lines(
        {"Training_MVT_Deposit": "Present"},
        {"Training_MVT_Occurrence": "Present", "Training_CD_Occurrence": "Present"},
        {},
    )
    assert convert(write(rows), "Label_MVT", "Label_CD") == [
        [True, True, False],
        [False, True, False],
    ]


def test_blocks_and_row_groups_change_nothing(write, tmp_path, monkeypatch):
    "Rows keep their order, and a row group is bounded however many rows there are"
    cells = list(h3.grid_disk(CELLS[0], 4))[:50]
    moho = [str(k) for k in range(50)]
    rows = [
        line(cell, Seismic_Moho=value, Crust1_Type=f"kind {int(value) % 3}")
        for cell, value in zip(cells, moho, strict=True)
    ]
    path = write(rows)
    lawley_table.write_parquet(path, tmp_path / "whole.parquet")
    monkeypatch.setattr(lawley_table, "BLOCK", 3000)
    monkeypatch.setattr(lawley_table, "ROWS", 10)
    assert lawley_table.write_parquet(path, tmp_path / "blocks.parquet") == 50
    whole, blocks = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("whole", "blocks"))
    assert whole["Seismic_Moho"].to_pylist() == list(range(50))
    assert blocks.to_pydict() == whole.to_pydict()
    groups = pq.ParquetFile(tmp_path / "blocks.parquet").metadata
    sizes = [groups.row_group(k).num_rows for k in range(groups.num_row_groups)]
    assert sum(sizes) == 50 and len(sizes) > 2 and all(10 <= size < 20 for size in sizes[:-1])


# mistakes


@pytest.mark.parametrize(
    ("column", "value", "wrong"),
    [
        ("Seismic_Moho", "deep", "'deep' is not a number"),
        ("H3_Resolution", "seven", "'seven' is not a number"),
        ("Terrane_Contact", "present", "'present' is neither"),
        ("Training_CD_Deposit", "Yes", "'Yes' is neither"),
        ("H3_Address", "8712e579bffff", "'8712e579bffff' is no H3 cell of resolution 7"),
        ("H3_Address", "8612e579fffffff", "'8612e579fffffff' is no H3 cell of resolution 7"),
        ("H3_Address", "87z2e579bffffff", "'87z2e579bffffff' is no H3 cell of resolution 7"),
        ("H3_Address", "", "'' is no H3 cell of resolution 7"),
        (
            "Geology_Lithology_Minority",
            "Metamorphic_Shist",
            "'Metamorphic_Shist' is an unfamiliar class .nearest: Metamorphic_Schist",
        ),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_read_is_named_by_line_and_column(column, value, wrong, write):
    "The second row is the third line"
    path = write(lines({}, {column: value}, {}))
    with pytest.raises(ValueError, match=f"cube.csv, line 3, column '{column}': {wrong}"):
        lawley_table.write_parquet(path, path.with_suffix(".parquet"))


def test_the_line_is_right_in_a_later_block(write, monkeypatch):
    "A row is longer than a block here"
    monkeypatch.setattr(lawley_table, "BLOCK", 100)
    path = write(lines({}, {}, {"HeatFlow": "x"}))
    with pytest.raises(ValueError, match="line 4, column 'HeatFlow'"):
        lawley_table.write_parquet(path, path.with_suffix(".parquet"))


def test_a_row_with_another_number_of_values_is_named(write):
    "A comma in text without quotes makes one more"
    path = write(lines({}, {"Crust1_Type": "orogen, thick"}))
    with pytest.raises(ValueError, match="line 3: 98 values instead of 97; is a comma or quote"):
        lawley_table.write_parquet(path, path.with_suffix(".parquet"))


def test_a_failure_leaves_the_old_table(write, tmp_path):
    "And nothing half-written beside it"
    out = tmp_path / "cube.parquet"
    lawley_table.write_parquet(write(lines({}, {})), out)
    with pytest.raises(ValueError):
        lawley_table.write_parquet(write(lines({}, {"HeatFlow": "x"})), out)
    assert pq.read_metadata(out).num_rows == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cube.csv", "cube.parquet"]


def test_a_table_without_rows_is_an_error(write):
    "Half a download, perhaps"
    path = write([])
    with pytest.raises(ValueError, match="has a header and no rows"):
        lawley_table.write_parquet(path, path.with_suffix(".parquet"))


def test_a_missing_file_is_named(tmp_path):
    "As the system says it"
    with pytest.raises(FileNotFoundError, match="cube.csv"):
        lawley_table.write_parquet(tmp_path / "cube.csv", tmp_path / "cube.parquet")


def test_text_of_the_file_is_kept_as_classes(write, tmp_path):
    "5 million rows of text would not fit in memory otherwise"
    out = tmp_path / "cube.parquet"
    lawley_table.write_parquet(write(lines({}, {})), out)
    assert pq.read_schema(out).field("Province_Majority").type == TEXT
    assert hexagons.classes(out, "Geology_Lithology_Majority_Merged") == []
