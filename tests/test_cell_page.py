from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
from helpers import centre_of, toy_setting

from mpm import cell_page, cell_setting


@pytest.fixture(scope="module")
def setting():
    return toy_setting()


def test_the_headline_says_where_how_likely_and_how_high(setting):
    "60 cells lie in columns farther east, 4 in its own no farther north: 64 of 380"
    found = cell_page.headline(setting, centre_of(setting, 16, 16))
    assert "Toy: MVT; known deposit C" in found
    assert "likelihood 0.81 ± 0.08" in found and "in the top 17 % of west" in found


def test_a_page_shows_place_reasons_window_and_deposits(setting):
    "The cell on the map, bars as long as the contributions, four planes twice, two lists"
    centre = centre_of(setting, 10, 10)
    fig = cell_page.draw(setting, centre)
    axes = {ax.get_title(): ax for ax in fig.findobj(plt.Axes) if ax.get_title()}
    place = next(ax for title, ax in axes.items() if "known deposits" in title)
    marks = [line for line in place.lines if line.get_marker() == "+"]
    assert [line.get_xdata()[0] for line in marks] == [510.5] * 2
    bars = next(ax for title, ax in axes.items() if "speaks" in title)
    _, summed, _ = cell_setting.contributions(setting, [centre])
    expected = sorted(summed.iloc[0], key=abs, reverse=True)
    assert [patch.get_width() for patch in bars.patches] == pytest.approx(expected, rel=1e-3)
    assert (
        bars.get_xlabel()
        == "raises (right) or lowers (left) the score, compared with typical ground"
    )
    assert place.images[0].get_clim() == (0, 1), "likelihood has one range everywhere"
    shown = {title for title in axes if "blue" in title or "yellow" in title} - {bars.get_title()}
    assert shown == {
        "LAB depth\n6 (blue) to 14 (yellow) km",
        "faults\n6e+03 (blue) to 1.4e+04 (yellow) m",
        "rock: granite\n(yellow: yes)",
    }, "in their units; of rock the class that its bar names"
    assert axes["rock: granite\n(yellow: yes)"].images[0].get_clim() == (0, 1)
    below = [ax for ax in axes.values() if ax.get_title().startswith("sum ")]
    for ax in below:  # each panel has its own scale, as its title says
        drawn = ax.images[1].get_array()
        assert ax.images[1].get_clim()[1] == pytest.approx(float(abs(drawn).max()))
    told = {round(float(ax.get_title().split()[1].rstrip(",")), 2) for ax in below}
    assert told == {round(float(value), 2) for value in summed.iloc[0]}
    told = " ".join(text.get_text() for part in fig.subfigs for text in part.texts)
    assert "Reasons are those of the network: they add up to" in told
    assert "B, 5 km" in told and "not the chance of finding a deposit" in told
    plt.close(fig)


def test_a_page_says_whose_reasons_and_whether_they_add_up():
    assert cell_page.whose(1, 0.0023).startswith(
        "Reasons are those of the network: they add up to the difference of the scores within 0.23%"
    )
    assert "those of 3 networks, averaged as the map is: CAUTION: they miss" in cell_page.whose(
        3, 0.01
    )


def test_a_page_is_written_twice_alike(setting, tmp_path, monkeypatch):
    "The same bytes, where they were asked for or in the study's figures"
    study = SimpleNamespace(name="toy", targets={"MVT": None})
    monkeypatch.setattr(cell_page, "load", lambda name: study)
    seeds = []

    def opened(*given, **options):
        seeds.append(options["seed"])
        return setting

    monkeypatch.setattr(cell_page, "open_setting", opened)
    monkeypatch.setenv("MPM_FIGURES", str(tmp_path))
    one = cell_page.write("toy", 15.1, 45.15)
    assert one == tmp_path / "toy" / "explain_MVT_15.1000_45.1500.png"
    two = cell_page.write("toy", 15.1, 45.15, out=tmp_path / "two.png", seed=3)
    assert seeds == [None, 3], "by default the seed of the map"
    assert one.read_bytes() == two.read_bytes()
    with pytest.raises(ValueError, match=r"page.pdf is no PNG"):
        cell_page.write("toy", 15.1, 45.15, out=tmp_path / "page.pdf")


def test_the_likeliest_cell_of_a_large_region_is_not_in_the_top_nothing():
    assert [cell_page._percent(share) for share in (17.2, 4.25, 0.05, 0.004)] == [
        "17",
        "4.2",
        "0.1",
        "< 0.1",
    ]
