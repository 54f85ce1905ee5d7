"""What is known of the published data cube, and that no label is ever a feature."""

import pytest

from mpm import lawley_facts, study
from mpm.lawley_facts import features

SETS = ("baseline", "updated", "preferred", "all")
LABELS = [f"Training_{kind}_{what}" for kind in ("MVT", "CD") for what in ("Deposit", "Occurrence")]


def test_the_table_has_97_columns_in_file_order():
    "The ends are printed in public notebooks"
    names = list(lawley_facts.columns())
    assert len(names) == 97
    assert names[:5] == ["H3_Address", "H3_Resolution", "H3_Geometry"] + [
        "Longitude_EPSG4326",
        "Latitude_EPSG4326",
    ]
    assert names[-4:] == LABELS and names[-7] == "Crust1_Type"


def test_the_parquet_file_holds_each_kind_of_column_in_its_type():
    "And nothing of the geometry"
    types = {field.name: str(field.type) for field in lawley_facts.schema()}
    assert types["H3_Address"] == "uint64" and "H3_Geometry" not in types
    assert types["Longitude_EPSG4326"] == "double" and types["Seismic_Moho"] == "float"
    assert types["Terrane_Contact"] == types["Igneous_Dictionary"] == types["Label_MVT"] == "bool"
    for name in ("Crust1_Type", "Province_Majority", "Geology_Period_Maximum_Minority_Merged"):
        assert types[name].startswith("dictionary<values=string")
    assert len(types) == 96 + 6 + 3 + 2  # merged classes, dictionaries, labels


def test_units_are_in_the_file_where_they_are_known():
    "Of CRUST1.0 thickness and of density; elsewhere they are blank"
    schema = lawley_facts.schema()
    units = {name: schema.field(name).metadata[b"units"].decode() for name in schema.names}
    assert units["Crust1_SedimentThickness"] == "m" and units["Crust1_CrustalThickness"] == "km"
    assert units["Litmod_Density_Crust"] == "kg/m3" and units["Geology_Fault_Proximity"] == ""


@pytest.mark.parametrize(
    ("column", "classes", "left"),
    [("Geology_Lithology_Majority", 31, 9), ("Geology_Period_Minimum_Minority", 20, 17)],
)
def test_classes_are_merged_to_as_many_as_published(column, classes, left):
    "A class that stays is merged with itself"
    origin, table = lawley_facts.merged()[f"{column}_Merged"]
    assert origin == column and len(table) == classes and len(set(table.values())) == left
    assert all(table[name] == name for name in table.values())


def test_merged_classes_are_the_published_ones():
    "Marble was a carbonate; all that is Archean is one"
    lithology = lawley_facts.merged()["Geology_Lithology_Minority_Merged"][1]
    assert lithology["Metamorphic_Marble"] == "Sedimentary_Chemical"
    assert lithology["Igneous_Intrusive_Ultramafic"] == "Igneous_Intrusive_Mafic"
    period = lawley_facts.merged()["Geology_Period_Maximum_Majority_Merged"][1]
    assert {name for name in period if period[name] == "Neoarchean"} == {
        "Neoarchean",
        "Mesoarchean",
        "Paleoarchean",
        "Eoarchean",
    }


def test_feature_sets_are_as_large_as_published():
    "12 layers; 11 of geology more; one more again, and the other paleolatitude"
    baseline, updated, preferred = (set(features(name)) for name in SETS[:3])
    assert (len(baseline), len(updated), len(preferred)) == (12, 23, 24)
    assert baseline < updated
    assert preferred - updated == {
        "Geology_Lithology_Minority_Merged",
        "Geology_Paleolatitude_Period_Minimum",
    }
    assert updated - preferred == {"Geology_Paleolatitude_Period_Maximum"}


def test_all_features_are_every_measured_or_mapped_column_once():
    "45 of numbers, 20 of booleans, 15 of classes with 6 of them merged, 3 dictionaries"
    chosen = features("all")
    assert len(chosen) == len(set(chosen)) == 45 + 20 + 15 + 3
    assert "Geology_Lithology_Majority_Merged" in chosen
    assert "Geology_Lithology_Majority" not in chosen  # the merged column stands for it
    assert not {"Longitude_EPSG4326", "Terrane_Majority", "H3_Address"} & set(chosen)


@pytest.mark.parametrize("name", SETS)
def test_no_feature_is_derived_from_a_label(name):
    "Neither a published label nor a column made from one"
    assert not set(features(name)) & set(lawley_facts.label_columns())
    assert not [column for column in features(name) if "Training" in column or "Label" in column]


def test_label_columns_are_marked_in_the_file():
    "The four published and the two made from them, and no other"
    marked = [field.name for field in lawley_facts.schema() if b"role" in field.metadata]
    assert sorted(marked) == sorted([*LABELS, "Label_MVT", "Label_CD"])
    assert sorted(marked) == sorted(lawley_facts.label_columns())


@pytest.mark.parametrize("label", [*LABELS, "Label_MVT", "Label_CD"])
def test_naming_a_label_as_a_feature_is_an_error(label):
    "Alone or among features"
    for words in (label, f"Seismic_Moho, {label}"):
        with pytest.raises(ValueError, match=f"{label} is a label or made from one"):
            features(words)


def test_features_can_be_named():
    "With commas between; an unknown name gives the nearest, a place is none"
    assert features("Seismic_Moho, Terrane_Contact") == ["Seismic_Moho", "Terrane_Contact"]
    with pytest.raises(ValueError, match="'prefered' is no feature .nearest: preferred"):
        features("prefered")
    with pytest.raises(ValueError, match="'Province_Majority' is no feature"):
        features("Province_Majority")


def test_the_study_has_the_preferred_features_and_no_label():
    "One layer a column, from the one table"
    layers = study.load("lawley2022").layers
    assert [layer.column for layer in layers] == features("preferred")
    assert {layer.file for layer in layers} == {"datacube.parquet"}
    text = {layer.column for layer in layers if layer.kind == "categorical"}
    assert text == {name for name in features("preferred") if name.endswith("_Merged")}
    assert all(layer.why and layer.source for layer in layers)


def test_every_part_of_the_facts_says_where_it_was_read():
    "The description of the file aside"
    parts = {name: part for name, part in lawley_facts.facts().items() if name != "about"}
    assert all(part["source"] for part in parts.values())
