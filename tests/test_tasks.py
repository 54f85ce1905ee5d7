from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.tree import DecisionTreeClassifier

from mpm import tasks
from mpm.folds import Fold
from mpm.tasks import Scorer, Task


class Column:
    """Windows of one layer: the number of the centre."""

    def centres(self, index):
        return np.asarray(index, "float32")[:, None]


@pytest.fixture
def task() -> Task:
    """600 centres in three parts, every tenth of them positive."""
    parts = np.array_split(np.arange(600), 3)
    fold = Fold("blocks", 0, None, Column(), *parts)
    positive = np.arange(600) % 10 == 0
    deposit = np.where(positive, np.arange(600), -1)
    return Task(fold, positive, deposit, ("number",), {}, seed=3)


def test_shuffling_deals_the_labels_within_training_and_within_validation(task):
    """As many as before in each, and as many others, with their deposits; the test is as it was"""
    dealt = tasks.shuffle_labels(task)
    for part in ("train", "validation"):
        whole, kept = getattr(task.fold, part), getattr(dealt.fold, part)
        assert len(kept) == 40 and set(kept) <= set(whole) and (np.diff(kept) > 0).all()
        assert set(whole[task.positive[whole]]) <= set(kept), "known deposits are among them"
        assert dealt.positive[kept].sum() == task.positive[whole].sum() == 20
        assert 0 < (dealt.positive[kept] & task.positive[kept]).sum() < 20
        assert sorted(dealt.deposit[kept]) == sorted(task.deposit[kept])
        np.testing.assert_array_equal(dealt.deposit[kept] >= 0, dealt.positive[kept])
    np.testing.assert_array_equal(dealt.positive[task.fold.test], task.positive[task.fold.test])
    np.testing.assert_array_equal(
        dealt.positive, tasks.shuffle_labels(task).positive
    )  # the seed decides
    assert (tasks.shuffle_labels(replace(task, seed=4)).positive != dealt.positive).any()


def test_shuffled_labels_favour_no_ground():
    """Trees rank common ground as high as rare ground; few labels among all cells would not"""
    number = np.arange(4000)
    place = np.where(number < 3600, number % 90, number)  # 40 cells at each of 90 places, 400 alone
    positive = number % 40 == 0
    everything = {"train": number, "validation": number, "test": number}
    fold = Fold("blocks", 0, None, Column(), **everything)
    own = Task(fold, positive, np.where(positive, number, -1), ("number",), {}, seed=0)
    common = number < 3600

    def auc(positive, train, seed):
        tree = DecisionTreeClassifier(class_weight="balanced", min_samples_leaf=3, random_state=0)
        tree.fit(place[train, None], positive[train])
        return roc_auc_score(common, tree.predict_proba(place[:, None])[:, 1])

    fair, unfair = [], []
    for seed in range(40):
        dealt = tasks.shuffle_labels(replace(own, seed=seed))
        fair.append(auc(dealt.positive, dealt.fold.train, seed))
        unfair.append(auc(np.random.default_rng(seed).permutation(positive), number, seed))
    assert np.mean(fair) == pytest.approx(0.5, abs=4 * np.std(fair) / np.sqrt(40))
    assert np.mean(unfair) > 0.6


def test_scores_that_are_not_finite_are_refused():
    broken = Scorer(lambda windows, index: np.where(index > 1, np.nan, 0.0))
    with pytest.raises(ValueError, match="2 of 4 scores are not finite"):
        broken(None, np.arange(4))


def test_some_centres_are_all_positive_ones_and_a_sample_of_the_others(task):
    """20 of 200 training centres are positive; the seed decides on the others"""
    index = tasks.some(task, "train", 50)
    assert task.positive[index].sum() == 20 and (~task.positive[index]).sum() == 50
    assert set(index) <= set(task.fold.train) and (np.diff(index) > 0).all()
    np.testing.assert_array_equal(index, tasks.some(task, "train", 50))
    assert not np.array_equal(index, tasks.some(replace(task, seed=4), "train", 50))
    np.testing.assert_array_equal(tasks.some(task, "validation", 500), task.fold.validation)


class Says:
    """An estimator whose probability is its setting times the number, and which counts cells."""

    def __init__(self, times: float):
        self.times = times

    def fit(self, X, y):
        self.cells, self.known = len(X), int(y.sum())
        return self

    def predict_proba(self, X):
        return np.column_stack([0 * X[:, 0], self.times * X[:, 0]])


def test_the_winner_is_fitted_on_all_training_centres(task):
    """Validation's positive centres are made the last ones: the rising score wins"""
    task.positive[200:390], task.positive[390:400] = False, True
    grid = [{"times": -1.0}, {"times": 2.0}, {"times": 3.0}]
    few, judged = tasks.some(task, "train", 50), task.fold.validation
    see = Column.centres
    found = tasks.fit_best(Says, grid, see, task, task.fold.train, few, judged)
    assert found.chosen == {"times": 2.0}  # the first of equals
    assert (found.model.cells, found.model.known) == (200, 20)
    np.testing.assert_array_equal(found(Column(), [5, 7]), [10, 14])
    alone = tasks.fit_best(Says, grid, see, task, few, few, judged)
    assert (alone.model.cells, alone.model.known) == (70, 20)
