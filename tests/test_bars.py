import gc
import io
import sys
from types import SimpleNamespace

import IPython.display
import pytest

from mpm import bars


@pytest.fixture
def cell(monkeypatch):
    "A running cell of a notebook; what is displayed there, in order"
    shown = []

    def display(data, *, raw, display_id):
        assert raw and display_id
        shown.append(data["text/plain"])
        return SimpleNamespace(update=lambda data, raw: shown.append(data["text/plain"]))

    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: shell)
    monkeypatch.setattr(IPython.display, "display", display)
    return shown


def test_a_bar_in_a_notebook_is_text_and_goes(cell, capsys):
    "One output whose text changes and is empty in the end; nothing in red"
    assert list(bars.tqdm("abc", desc="layers", leave=False, mininterval=0)) == list("abc")
    assert cell[0].startswith("layers:   0%") and "0/3" in cell[0]
    assert any("2/3" in line for line in cell) and cell[-1] == ""
    assert not [line for line in cell if "\r" in line or "\n" in line]
    assert capsys.readouterr() == ("", "")


def test_a_bar_that_stays_says_that_it_is_finished(cell):
    list(bars.tqdm(range(5), desc="steps", mininterval=0))
    assert cell[-1].startswith("steps: 100%") and "5/5" in cell[-1]


def test_a_loop_that_is_left_early_leaves_no_bar(cell):
    "As training does that gets no better"
    for step in bars.tqdm(range(100), leave=False, mininterval=0):
        if step == 3:
            break
    gc.collect()
    assert cell[-1] == ""


def test_a_hidden_bar_shows_nothing(cell, capsys):
    assert list(bars.tqdm(range(3), disable=True)) == [0, 1, 2]
    assert cell == [] and capsys.readouterr() == ("", "")


def test_a_bar_elsewhere_is_that_of_tqdm():
    "In a terminal it goes to stderr, or where it is told"
    place = io.StringIO()
    with bars.tqdm(total=2, desc="files", file=place) as bar:
        bar.update(2)
    assert "files: 100%" in place.getvalue()
    assert not bars.in_notebook()
