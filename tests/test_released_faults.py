"""No fault that was found in the released code of GFM4MPM (sri-ta3, commit 68eb231) is in ours.

The faults are numbered and named below, with the tests that show each of them absent. Those without
a file are in this one.
"""

import ast
import functools
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from helpers import tiny

from mpm import (
    artefacts,
    explain,
    fetch,
    fine_tuning,
    mae,
    map_files,
    mapping,
    splits,
    study,
    training,
)
from mpm.classifier import Classifier
from mpm.fine_tuning import FineTuneSettings
from mpm.folds import Fold
from mpm.metrics import best_threshold, scores
from mpm.pu_selection import choose_negatives
from mpm.windows import make_windows

TESTS = Path(__file__).parent
SOURCES = {
    path.stem: ast.parse(path.read_text(encoding="utf-8"))
    for path in (TESTS.parent / "mpm").glob("*.py")
}
FAULTS = {
    1: (
        "test windows overlap training windows, and a deposit's cells part",
        "test_folds::test_no_training_window_sees_a_held_out_cell",
        "test_splits::test_no_part_comes_within_the_dead_zone_of_another",
        "test_splits::test_deposits_and_their_neighbours_never_part",
    ),
    2: (
        "negatives are chosen by the distance to test positives",
        "test_what_is_held_out_chooses_no_negatives",
        "test_labels::test_cells_elsewhere_do_not_matter",
    ),
    3: (
        "scores are those of one positive among 21 cells, whatever the map holds",
        "test_folds::test_numbers_of_centres_are_those_of_the_split",
        "test_mapping::test_a_fold_is_tuned_and_its_test_cells_predicted",
    ),
    4: (
        "early stopping compares with a score from before the training",
        "test_fine_tuning::test_the_best_step_is_kept",
        "test_fine_tuning::test_it_stops_when_it_gets_no_better",
    ),
    5: (
        "temperature scaling makes the calibration worse",
        "test_fine_tuning::test_the_temperature_improves_the_balanced_log_loss",
        "test_fine_tuning::test_the_temperature_undoes_a_scale_of_the_logits",
    ),
    6: (
        "calibration compares probabilities with the accuracy",
        "test_curves::test_calibration_is_near_zero_for_calibrated_rare_events",
        "test_curves::test_calibration_table_by_hand",
    ),
    7: (
        "a cell at the threshold counts as positive in one place only",
        "test_a_cell_at_the_threshold_is_positive_wherever_it_is_counted",
        "test_prediction::test_no_threshold_beats_the_best",
    ),
    8: (
        "visible patches raise SSIM and PSNR, whose range depends on what came before",
        "test_reconstruction::test_ssim_is_equation_13_on_scored_cells",
        "test_reconstruction::test_errors_are_of_scored_cells_layer_by_layer",
    ),
    9: (
        "the loss is that of all patches",
        "test_mae::test_loss_ignores_visible_and_missing_cells",
    ),
    10: (
        "the backbone runs once for every dropout sample",
        "test_the_backbone_runs_once_a_window_whatever_the_samples",
        "test_mapping::test_mean_and_spread_are_those_of_full_passes",
    ),
    11: (
        "dropout stays on for attributions",
        "test_attributions_are_the_same_after_dropout_samples",
        "test_mapping::test_the_classifier_is_left_ready_and_unchanged",
    ),
    12: (
        "attributions miss part of the logit, and cancel within a window",
        "test_explain::test_attributions_sum_to_the_change_of_the_logit",
        "test_explain::test_signed_and_absolute_sums_by_hand",
    ),
    13: (
        "a batch of one window crashes",
        "test_mapping::test_the_batch_size_does_not_change_the_numbers",
        "test_explain::test_batches_do_not_change_the_attributions",
    ),
    14: (
        "results of two runs overwrite each other in the working folder; a map is held as text",
        "test_results_of_two_targets_and_regions_lie_apart",
        "test_map_files::test_predictions_are_read_as_they_were_written",
    ),
    15: (
        "all regions get the georeference of the last",
        "test_mapping::test_maps_keep_the_geometry_of_their_cube",
        "test_mapping::test_every_value_lies_at_its_cell",
    ),
    16: (
        "nodata of a map is not the number it says, and its rim is empty",
        "test_map_files::test_a_map_is_a_cloud_optimized_geotiff",
        "test_mapping::test_maps_reach_the_edges_of_the_grid",
    ),
    17: (
        "nodata of labels becomes positive",
        "test_deposits::test_label_raster_of_floats_with_nan_has_no_deposit_there",
        "test_deposits::test_touching_cells_of_a_label_raster_are_one_deposit",
    ),
    18: (
        "a layer of mostly zeros is flattened, and leaves no valid window",
        "test_scaling::test_a_zero_inflated_layer_keeps_its_tail",
        "test_scaling::test_a_constant_layer_becomes_zero_in_every_region",
    ),
    19: (
        "taming outliers changes the order of values",
        "test_scaling::test_a_larger_value_never_scales_smaller",
    ),
    20: (
        "rasters of integers crash",
        "test_align::test_nodata_collar_of_integers_never_becomes_a_number",
    ),
    21: (
        "outlier limits, mean and deviation are those of the whole raster",
        "test_scaling::test_cells_outside_the_masks_leave_the_scaling_unchanged",
        "test_folds::test_what_is_held_out_does_not_touch_the_scaling",
    ),
    22: (
        "evidence is stored in half precision",
        "test_windows_hold_numbers_that_half_precision_has_not",
    ),
    23: (
        "what was made of old data or settings is used again; rasters need not be aligned",
        "test_rasters::test_a_changed_file_is_read_anew",
        "test_fetch::test_checksums_cover_all_parts",
        "test_pipeline::test_a_changed_parameter_or_cell_runs_what_depends_on_it",
        "test_checkpoints::test_a_checkpoint_of_another_training_is_left_out_and_says_why",
        "test_align::test_raster_in_degrees_lands_where_its_longitudes_say",
    ),
    24: (
        "choosing negatives needs memory for all cells times all positives, and enough of them",
        "test_labels::test_memory_is_a_chunk_times_the_positives",
        "test_labels::test_candidates_lie_within_the_quantiles",
    ),
    25: (
        "the bundled example names a file that is not there",
        "test_every_file_of_the_nickel_tile_is_in_the_registry",
        "test_fetch::test_the_nickel_tile_comes_as_published",
        "test_study::test_every_study_of_the_compendium_is_valid",
    ),
    26: (
        "settings are accepted and never used, or misspelt",
        "test_every_setting_is_read",
        "test_study::test_an_unknown_key_is_refused",
        "test_pipeline::test_a_misspelt_name_is_refused_before_anything_runs",
    ),
    27: (
        "the order of imports matters",
        "test_project::test_imports_run_one_way",
        "test_project::test_imports_have_no_cycles",
    ),
    28: (
        "newer packages break it, and checkpoints pickle whole networks, twice",
        "test_project::test_the_lock_pins_every_dependency_within_bounds",
        "test_nothing_is_pickled",
        "test_a_backbone_takes_four_bytes_a_weight",
    ),
}


@functools.cache
def names_in(file: str) -> list[str]:
    nodes = ast.parse((TESTS / f"{file}.py").read_text(encoding="utf-8")).body
    return [node.name for node in nodes if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("number", range(1, 29))
def test_each_fault_has_tests(number):
    "They are where the table says, once each: of two with one name pytest runs the second alone"
    what, *tests = FAULTS[number]
    assert what and tests
    for test in tests:
        file, _, name = test.rpartition("::")
        assert names_in(file or Path(__file__).stem).count(name) == 1, test


def names_used(tree: ast.AST) -> set[str]:
    "What a module calls and imports, e.g. torch.save"
    found = {ast.unparse(part.func) for part in ast.walk(tree) if isinstance(part, ast.Call)}
    for part in ast.walk(tree):
        if isinstance(part, ast.Import | ast.ImportFrom):
            found |= {getattr(part, "module", None) or ""} | {name.name for name in part.names}
    return found


@pytest.fixture
def windows():
    "Two layers on 6 x 7 cells; the first is 2049 everywhere, the second noise"
    evidence = np.full((2, 6, 7), 2049, "float32")
    evidence[1] = np.random.default_rng(0).normal(size=(6, 7))
    cube = xr.Dataset(
        {"evidence": (("layer", "y", "x"), evidence), "valid": (("y", "x"), np.ones((6, 7), bool))},
        coords={"layer": ["high", "noise"]},
    )
    return make_windows([cube], 9, min_valid=0)


@pytest.fixture
def classifier():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return Classifier(mae.build(tiny(), seed=0).encoder, dropout=0.4).eval()


# 2


def test_what_is_held_out_chooses_no_negatives(windows):
    """Where the deposits of test and validation cells lie, and what these cells hold

    Flipping all their labels and evidence changes nothing; one training label more does.
    """
    cells = np.arange(42)
    fold = Fold("blocks", 0, None, windows, cells[:24], cells[24:32], cells[32:])
    settings = FineTuneSettings(quantiles=(0.5, 1.0), per_positive=5)
    positive = cells % 12 == 0
    before = choose_negatives(fold, positive, settings, seed=0)
    assert len(before) == 10 and set(before) <= set(fold.train[~positive[fold.train]])
    held_out = positive ^ (cells >= 24)
    row, col = windows.row[24:] + 4, windows.col[24:] + 4  # on the canvas
    windows.canvas[:, row, col] = 99
    assert choose_negatives(fold, held_out, settings, seed=0).tolist() == before.tolist()
    held_out[5] = True
    assert choose_negatives(fold, held_out, settings, seed=0).tolist() != before.tolist()


# 7


def test_a_cell_at_the_threshold_is_positive_wherever_it_is_counted():
    "The threshold is a cell's own likelihood: by > instead of >= that cell would be missed"
    y, p = np.array([True, True, False]), np.array([0.9, 0.6, 0.5])
    threshold = best_threshold(y, p)
    assert threshold == 0.6
    found = scores(y, p, np.array([0, 1, -1]), threshold, draws=2).set_index("metric")["value"]
    assert found["f1"] == found["mcc"] == found["accuracy"] == found["balanced_accuracy"] == 1


# 10


@pytest.mark.parametrize("samples", [0, 1, 100])
def test_the_backbone_runs_once_a_window_whatever_the_samples(classifier, windows, samples):
    "42 windows go through it, in batches of 20"
    seen = []
    classifier.encoder.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    mapping.predict(classifier, windows, np.arange(42), samples=samples, batch=20)
    assert seen == [20, 20, 2]


# 11


def test_attributions_are_the_same_after_dropout_samples(classifier, windows):
    "Of every batch, the first and those after it"
    cells = np.array([0, 17, 41])
    before, _ = explain.integrated_gradients(classifier, windows, cells, steps=4, batch=1)
    mapping.predict(classifier, windows, cells, samples=20)
    after, _ = explain.integrated_gradients(classifier, windows, cells, steps=4, batch=1)
    np.testing.assert_array_equal(after, before)
    assert (np.abs(before).sum(axis=(1, 2, 3)) > 0).all()


# 14


def test_results_of_two_targets_and_regions_lie_apart():
    "Below the study's folder of artefacts, not in the working folder"
    demo = study.load("demo")
    places = [
        map_files.prediction_path(demo, target, region)
        for target in ("MVT", "CD")
        for region in ("north", "south")
    ]
    places += [mapping.predictions_path(demo, name, by) for name in ("MVT", "CD") for by in "ab"]
    assert len(set(places)) == 8
    assert all(path.is_absolute() and demo.processed in path.parents for path in places)


# 22


def test_windows_hold_numbers_that_half_precision_has_not(windows):
    "2049 would become 2048"
    values, observed = windows.gather(np.arange(42))
    assert values.dtype == torch.float32
    assert set(values[:, 0][observed[:, 0]].tolist()) == {2049.0}


# 25


def test_every_file_of_the_nickel_tile_is_in_the_registry():
    "The 14 layers and the label raster, by name, and nothing else"
    tile = study.load("magmatic_nickel_mini")
    known = fetch.read_registry(artefacts.home() / "data" / "registry.csv", tile.name)
    (region,) = tile.regions
    needed = {tile.file(item, region).name for item in (*tile.layers, tile.deposits)}
    assert {entry.name for entry in known} == needed and len(needed) == 15


# 26


@pytest.mark.parametrize(
    "settings",
    [
        mae.MAEConfig,
        training.PretrainSettings,
        fine_tuning.FineTuneSettings,
        splits.SplitSettings,
    ],
)
def test_every_setting_is_read(settings):
    "Of `config`, `settings` or `self`, in the module that defines it or one that imports that"
    home = settings.__module__.removeprefix("mpm.")
    readers = [tree for name, tree in SOURCES.items() if name == home or imports(tree, home)]
    read = {
        node.attr
        for tree in readers
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Load)
        and ast.unparse(node.value).split(".")[-1] in ("config", "settings", "self")
    }
    unused = {field.name for field in fields(settings)} - read
    assert not unused


def imports(tree: ast.AST, module: str) -> bool:
    return bool(names_used(tree) & {module, f"mpm.{module}"})


# 28


def test_nothing_is_pickled():
    "No module of the package imports pickle or has another package use it"
    bad = {"pickle", "cloudpickle", "joblib.dump", "joblib.load", "torch.save", "torch.load"}
    for name, tree in SOURCES.items():
        assert not names_used(tree) & bad, name


def test_a_backbone_takes_four_bytes_a_weight(tmp_path):
    "Neither a second copy of the network nor the optimizer's state are in the file"
    model, scaling = mae.build(tiny(), seed=0), SimpleNamespace(save=Path.touch)
    mae.save(model, tmp_path / "here", layers=["a", "b"], scaling=scaling, facts={})
    content = (tmp_path / "here" / "model.safetensors").read_bytes()
    header = int.from_bytes(content[:8], "little")
    assert len(content) - 8 - header == 4 * sum(weight.numel() for weight in model.parameters())
