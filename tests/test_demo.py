import hashlib

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
from rasterio.warp import transform
from sklearn.metrics import roc_auc_score

from mpm import demo, demo_world, study


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("generated") / "demo"
    demo.write(place)
    return place


@pytest.fixture(scope="module")
def deposits(folder):
    return demo.read_true_deposits(folder)


@pytest.fixture(scope="module")
def demo_study():
    return study.load("demo")


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def cells_of(table, region, folder):
    "Row and column of deposits on the truth's grid"
    with rasterio.open(folder / "truth" / f"{region}.tif") as truth:
        x, y = transform("EPSG:4326", truth.crs, *table[["longitude", "latitude"]].to_numpy().T)
        rows, cols = rasterio.transform.rowcol(truth.transform, x, y)
    return np.asarray(rows, int), np.asarray(cols, int)


def sample(path, table):
    "Values of a raster in its own CRS at deposits"
    with rasterio.open(path) as source:
        x, y = transform("EPSG:4326", source.crs, *table[["longitude", "latitude"]].to_numpy().T)
        return np.array([value[0] for value in source.sample(zip(x, y, strict=True))])


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(folder, tmp_path):
    "Every file depends on the seed and on nothing else: no clock, no place, nothing left over"
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "old.tif").write_text("of an earlier version")
    demo.write(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(folder)
    demo.write(tmp_path / "other", seed=8)
    other = contents(tmp_path / "other")
    assert other.keys() == contents(folder).keys()
    same = [name for name, digest in contents(folder).items() if other[name] == digest]
    assert same == ["truth/layers.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "other"]


def test_study_file_and_generator_agree(folder, demo_study):
    "Regions, layers and targets of the YAML are those the generator makes"
    grids = {
        name: region.model_copy(update={"area": None})
        for name, region in demo_study.regions.items()
    }
    assert grids == demo.REGIONS
    assert [layer.name for layer in demo_study.layers] == list(demo.read_roles(folder))
    assert tuple(demo_study.targets) == demo.TARGETS
    for layer in demo_study.layers:
        for region in demo_study.regions:
            assert (folder / layer.file.replace("{region}", region)).exists()


def test_there_are_many_layers_of_every_kind(demo_study):
    "At least 12 layers; rasters, classes, shares and distances; every one says why"
    kinds = {layer.kind for layer in demo_study.layers}
    assert len(demo_study.layers) >= 12
    assert kinds == {"continuous", "categorical", "fraction", "distance"}
    assert all(layer.why.endswith(".") for layer in demo_study.layers)


def test_the_study_never_points_at_the_truth(demo_study):
    "The truth is read by the evaluation only"
    files = [layer.file for layer in demo_study.layers] + [demo_study.deposits.file]
    files += [region.area for region in demo_study.regions.values()]
    assert not [file for file in files if "truth" in file]


def test_every_target_has_causes_proxies_and_distractors(folder):
    "At least 3 causal layers, 2 proxies and 3 distractors a target"
    roles = pd.DataFrame(demo.read_roles(folder)).T
    for target, fewest in [("MVT", 3), ("CD", 3)]:
        counts = roles[target].value_counts()
        assert counts["causal"] >= fewest and counts["proxy"] >= 2 and counts["distractor"] >= 3


def test_rasters_differ_in_crs_and_resolution(folder):
    "Finer and coarser than the 5 km grid, in its CRS and in degrees"
    names = ["gravity", "sediment_thickness", "magnetics", "lab"]
    found = {}
    for name in names:
        with rasterio.open(folder / "north" / f"{name}.tif") as source:
            found[name] = (source.crs.is_geographic, source.res[0])
    assert found == {
        "gravity": (False, 2500),
        "sediment_thickness": (False, 10_000),
        "magnetics": (True, 0.05),
        "lab": (True, 0.25),
    }


@pytest.mark.parametrize("region", ["north", "south"])
def test_integer_rasters_have_a_nodata_collar(folder, region):
    "Sea and corners hold the code, land plausible heights"
    with rasterio.open(folder / region / "topography.tif") as source:
        heights = source.read(1)
        assert source.dtypes == ("int16",) and source.nodata == -32768
    assert (heights[[0, 0, -1, -1], [0, -1, 0, -1]] == -32768).sum() >= 2
    assert 0.2 < (heights == -32768).mean() < 0.8
    assert heights[heights != -32768].min() > -1000


@pytest.mark.parametrize("region", ["north", "south"])
def test_magnetics_has_a_gap_inside(folder, region):
    "An unflown block of about 100 x 150 km in the middle, surrounded by data"
    with rasterio.open(folder / region / "magnetics.tif") as source:
        values = source.read(1)
    rows, cols = values.shape
    middle = values[rows // 5 : -rows // 5, cols // 5 : -cols // 5]
    assert 0.02 < np.isnan(middle).mean() < 0.15


def test_land_and_truth_cover_the_same_cells(folder):
    "60 to 75 % of each region is land; the sea has no probability"
    for region, spec in demo.REGIONS.items():
        truth = demo.read_truth(folder, region)
        land = gpd.read_file(folder / region / "land.gpkg")
        share = float(truth["MVT"].notnull().mean())
        assert truth["MVT"].shape == spec.shape
        assert truth.rio.crs == rasterio.CRS.from_user_input(spec.crs)
        assert truth.rio.bounds() == pytest.approx(spec.bounds)
        assert 0.6 < share < 0.75
        assert land.area.sum() == pytest.approx(share * 192 * 192 * 5000**2)
        assert truth["CD"].min() >= 0 and truth["CD"].max() < 1


def test_polygons_hold_the_named_classes(folder):
    "Both continents have all classes, so that either can predict the other"
    for region in demo.REGIONS:
        for name, classes in [("lithology", demo_world.ROCKS), ("age", demo_world.AGES)]:
            table = gpd.read_file(folder / region / f"{name}.gpkg")
            assert set(table[name]) == set(classes)
            assert table.is_valid.all()


def test_deposits_follow_the_true_probability(folder, deposits):
    "As many as the probability adds up to, where it is high, known or not"
    for target in demo.TARGETS:
        for region in demo.REGIONS:
            truth = demo.read_truth(folder, region)[target].values
            mine = deposits[(deposits["region"] == region) & (deposits["type"] == target)]
            rows, cols = cells_of(mine, region, folder)
            assert np.isfinite(truth[rows, cols]).all()
            assert len(mine) == pytest.approx(np.nansum(truth), rel=0.25)
            for chosen in [np.ones(len(mine), bool), mine["discovered"].to_numpy()]:
                hit = np.zeros(truth.shape, bool)
                hit[rows[chosen], cols[chosen]] = True
                land = np.isfinite(truth)
                assert roc_auc_score(hit[land], truth[land]) > 0.93


def test_few_deposits_are_known_and_cover_hides_them(folder, deposits):
    "A quarter or so is known, less under thick cover"
    for target in demo.TARGETS:
        mine = deposits[deposits["type"] == target]
        assert 60 <= mine["discovered"].sum() <= 130
        assert 0.15 < mine["discovered"].mean() < 0.35
    for region in demo.REGIONS:
        mine = deposits[deposits["region"] == region]
        cover = sample(folder / region / "cover_thickness.tif", mine)
        thick = cover > np.nanmedian(cover)
        known = mine["discovered"].to_numpy()
        assert known[thick].mean() < 0.75 * known[~thick].mean()


def test_catalogue_lists_the_known_deposits_and_no_others(folder, deposits):
    "Names, types and places match the truth's discovered ones; nothing tells of the rest"
    catalogue = pd.read_csv(folder / "deposits.csv")
    known = deposits[deposits["discovered"]]
    assert list(catalogue["name"]) == list(known["id"])
    assert np.array_equal(catalogue[["longitude", "latitude"]], known[["longitude", "latitude"]])
    assert set(catalogue["type"]) == {"MVT", "CD", "VMS"}
    assert set(catalogue["status"]) == {"mine", "past producer", "prospect"}
    assert "discovered" not in catalogue


def test_the_true_probability_is_sparse_and_smooth(folder):
    "Nine cells in ten are hopeless, and neighbours share their fate"
    for region in demo.REGIONS:
        for target in demo.TARGETS:
            truth = demo.read_truth(folder, region)[target].values
            assert np.nanmean(truth > 0.02) < 0.12
            left, right = truth[:, :-1], truth[:, 1:]
            both = np.isfinite(left) & np.isfinite(right)
            assert np.corrcoef(left[both], right[both])[0, 1] > 0.9


@pytest.mark.parametrize(
    "read", [lambda f: demo.read_truth(f, "north"), demo.read_true_deposits, demo.read_roles]
)
def test_missing_truth_says_how_to_make_it(tmp_path, read):
    "The message names the command"
    with pytest.raises(FileNotFoundError, match="mpm fetch demo"):
        read(tmp_path)
