from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import centre_of, toy_setting

from mpm import cell_setting


@pytest.fixture(scope="module")
def setting():
    return toy_setting()


def test_a_place_is_found_by_longitude_and_latitude(setting):
    "15 E is x = 500 km: the corner of the first column; half a cell on lies its centre"
    # 45.2044 N on the central meridian is y = 5,005.5 km within 50 m
    with pytest.raises(ValueError, match="lies in west, but on ground without a prediction"):
        cell_setting.find(setting, 15.006, 45.2044)
    assert cell_setting.find(setting, 15.0191, 45.2044) == centre_of(setting, 0, 1)
    assert cell_setting.find(setting, 15.0191, 45.1954) == centre_of(setting, 1, 1)


def test_a_place_outside_is_told_the_bounds(setting):
    "Of every region, in degrees"
    with pytest.raises(ValueError, match=r"outside every region of study 'toy': west 15\.0 to 15"):
        cell_setting.find(setting, 3, 45.1)


def test_the_top_share_counts_equals(setting):
    "The likeliest of 380 cells is in the top 1 / 380, the least likely in the top 100 %"
    best, worst = np.argmax(setting.likelihood), np.argmin(setting.likelihood)
    assert cell_setting.top_share(setting, best) == pytest.approx(1 / 380)
    assert cell_setting.top_share(setting, worst) == 1


def test_contributions_are_summed_by_evidence_layer(setting):
    "Both planes of rock in one column, and all of them the score less that of typical ground"
    centre = centre_of(setting, 1, 18)  # at the edge of the map: gaps unlike those of typical cells
    attribution, summed, gap = cell_setting.contributions(setting, np.array([centre]))
    assert summed.columns.tolist() == ["lab_depth", "faults", "rock"]
    assert summed["rock"].iloc[0] == pytest.approx(attribution[0, 2:].sum(), abs=1e-6)
    assert gap.shape == (1,) and gap[0] < 0.01
    assert summed.sum(axis=1).iloc[0] == pytest.approx(difference(setting, [centre]), rel=0.011)


def difference(setting, centres, model=None):
    "Score of cells less that of typical ground, gaps and all"
    with torch.no_grad():
        own, usual = (
            (model or setting.classifier)(*setting.fold.windows.gather(np.array(index)))
            for index in (centres, setting.typical)
        )
    return float(own.mean() - usual.mean())


def test_reasons_of_an_ensemble_are_those_of_all_its_networks(setting):
    "The sums are the mean of the members' differences, and the gap the largest of theirs"
    other = deepcopy(setting.classifier)
    with torch.no_grad():
        other.linear.weight.mul_(-3)
    both, centre = replace(setting, others=(other,)), centre_of(setting, 10, 10)
    assert both.members == [setting.classifier, other]
    _, summed, gap = cell_setting.contributions(both, np.array([centre]))
    one, two = (difference(setting, [centre], model) for model in both.members)
    assert one * two < 0
    assert summed.sum(axis=1).iloc[0] == pytest.approx((one + two) / 2, rel=0.011)
    _, _, alone = cell_setting.contributions(setting, np.array([centre]))
    assert gap[0] >= alone[0]


def test_places_and_names(setting):
    "A cell's coordinates are those of its centre; cells of no deposit have no name"
    centre = centre_of(setting, 5, 6)
    assert setting.place(centre) == (506_500, 5_000_500) and setting.region(centre) == "west"
    assert cell_setting.deposit_name(setting, centre) == "A"
    assert cell_setting.deposit_name(setting, centre_of(setting, 6, 6)) == ""
    assert cell_setting.deposit_number(setting, centre_of(setting, 5, 8)) == 1
    assert cell_setting.deposit_number(setting, centre_of(setting, 6, 6)) == -1


def test_notebooks_that_have_not_run_are_named(tmp_path, monkeypatch):
    "The first artefact that is missing says which"
    study = SimpleNamespace(
        name="toy", processed=tmp_path, regions={"west": None}, target=lambda name: None
    )
    with pytest.raises(FileNotFoundError, match="run notebook 01_data_preparation"):
        cell_setting.open_setting(study, "MVT")
