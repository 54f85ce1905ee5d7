"""Two runs side by side: identical, within tolerance, changed."""

import shutil

import numpy as np
import pandas as pd
import pytest
from helpers import write_tif
from PIL import Image
from toy_notebooks import home  # noqa: F401  (a fixture)

from mpm import __main__ as cli
from mpm import artefacts, pipeline, verify
from mpm.study import load


@pytest.fixture
def runs(home):
    """The study, its recorded run and another one, equal so far."""
    setup, other = load("tiny"), home / "other"
    for processed, figures in [
        (setup.processed, setup.figures),
        (other / "processed" / "tiny", other / "figures" / "tiny"),
    ]:
        processed.mkdir(parents=True)
        figures.mkdir(parents=True)
        Image.fromarray(np.full((10, 10, 3), 100, "uint8")).save(figures / "01_map.png")
        scores().to_parquet(processed / "scores.parquet")
        write_tif(processed / "likelihood.tif", np.full((2, 2), 0.5, "float32"))
    picture = setup.figures / "01_map.png"
    manifest = [{"figure": picture.name, "notebook": "01", "sha256": artefacts.sha256(picture)}]
    artefacts.write_json(setup.figures / "manifest.json", manifest)
    return setup, other


def scores(value=0.75, low=np.nan):
    """Two scores, one without an interval."""
    return pd.DataFrame({"fold": ["0", "1"], "value": [0.5, value], "low": [low, 0.25]})


def states(runs, **options):
    """Return state and detail by file."""
    return {each.file: (each.state, each.detail) for each in verify.compare(*runs, **options)}


def test_equal_runs_are_identical(runs):
    "Figures by the manifest, tables and maps by their bytes; rows may come in another order"
    scores()[::-1].to_parquet(runs[1] / "processed" / "tiny" / "scores.parquet")
    assert states(runs) == {
        "figures/01_map.png": ("identical", ""),
        "likelihood.tif": ("identical", ""),
        "scores.parquet": ("identical", "same values"),
    }


def test_a_changed_number_is_found_and_tolerated_on_demand(runs):
    "0.75 to 0.785 is 0.035 / 1.75 = 0.02; 0.5 to 0.53 in a map 0.03 / 1.5 = 0.02"
    made = runs[1] / "processed" / "tiny"
    scores(0.785).to_parquet(made / "scores.parquet")
    write_tif(made / "likelihood.tif", np.array([[0.5, 0.5], [0.5, 0.53]], "float32"))
    found = states(runs)
    assert found["scores.parquet"] == ("changed", "column 'value' by 0.02")
    assert found["likelihood.tif"] == ("changed", "column 'band 1' by 0.02")
    assert states(runs, tolerance=0.021)["scores.parquet"][0] == "within tolerance"
    assert states(runs, tolerance=0.019)["scores.parquet"][0] == "changed"


def test_a_value_that_was_missing_is_no_small_change(runs):
    "Nor is another text, or another number of rows"
    path = runs[1] / "processed" / "tiny" / "scores.parquet"
    for table in (scores(low=0.1), scores().assign(fold=["0", "2"]), scores()[:1]):
        table.to_parquet(path)
        assert states(runs, tolerance=1)["scores.parquet"][0] == "changed"


def test_an_infinity_is_no_small_change():
    "Against a number, the other infinity, or a gap; equal infinities are equal"
    inf, nan = np.inf, np.nan
    for a, b, apart in [
        (inf, 1, inf), (1, inf, inf), (-inf, inf, inf), (inf, nan, inf),
        (inf, inf, 0), (nan, nan, 0), (1, 1.5, 0.25),
    ]:  # fmt: skip
        assert verify._apart(pd.Series([a, 0.0]), pd.Series([b, 0.0])) == apart


def test_where_a_map_lies_counts_as_its_values_do(runs):
    "CRS, corner, value of gaps and type; other bytes of the same map are the same"
    path = runs[1] / "processed" / "tiny" / "likelihood.tif"
    half = np.full((2, 2), 0.5, "float32")
    for change, text in [
        ({"crs": "EPSG:32634"}, "crs EPSG:32633 became EPSG:32634"),
        ({"west": 1000}, "transform | 1000.00, 0.00, 500000.00|"),
        ({"nodata": -1}, "nodata None became -1.0"),
    ]:
        write_tif(path, half, **change)
        state, detail = states(runs, tolerance=1)["likelihood.tif"]
        assert state == "changed" and detail.startswith(text)
    write_tif(path, half.astype("float64"))
    assert states(runs)["likelihood.tif"] == ("changed", "dtypes ('float32',) became ('float64',)")
    write_tif(path, half, compress="deflate")
    assert states(runs)["likelihood.tif"] == ("identical", "same values")
    for place in (path, runs[0].processed / "likelihood.tif"):
        write_tif(place, half, nodata=np.nan, **({"tiled": True} if place == path else {}))
    assert states(runs)["likelihood.tif"] == ("identical", "same values")


def test_a_changed_picture_is_measured(runs):
    "One pixel of 100 goes from 100 to 151 of 255 in all colours: 0.2 there, 0.002 on average"
    pixels = np.full((10, 10, 3), 100, "uint8")
    pixels[0, 0] = 151
    path = runs[1] / "figures" / "tiny" / "01_map.png"
    Image.fromarray(pixels).save(path)
    assert states(runs)["figures/01_map.png"] == ("changed", "1 % of pixels, by 0.002 of 1")
    assert states(runs, tolerance=0.003)["figures/01_map.png"][0] == "within tolerance"
    Image.fromarray(pixels[:5]).save(path)
    detail = "10 x 10 pixels became 10 x 5"
    assert states(runs, tolerance=1)["figures/01_map.png"] == ("changed", detail)


def test_files_of_one_run_only_are_listed(runs):
    "What is no longer made, and what is made for the first time"
    (runs[1] / "figures" / "tiny" / "01_map.png").rename(
        runs[1] / "figures" / "tiny" / "02_new.png"
    )
    (runs[1] / "processed" / "tiny" / "likelihood.tif").unlink()
    found = {file: state for file, (state, _) in states(runs).items()}
    assert found == {
        "figures/01_map.png": "missing",
        "figures/02_new.png": "new",
        "likelihood.tif": "missing",
        "scores.parquet": "identical",
    }


def test_a_fresh_clone_compares_its_figures(runs):
    "Tables are not committed: those of the other run are new to nobody"
    setup, _ = runs
    for path in setup.processed.iterdir():
        path.unlink()
    assert list(states(runs)) == ["figures/01_map.png"]


def test_what_cannot_be_compared_says_what_to_do(runs, home):
    "No run there, no record here, never run"
    setup, other = runs
    with pytest.raises(FileNotFoundError, match="holds no figures/tiny"):
        verify.compare(setup, home / "nowhere")
    (setup.figures / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match="manifest.json is missing; run `mpm run tiny`"):
        verify.rerun(setup, home / "again")
    assert not (home / "again").exists()  # nothing was run
    with pytest.raises(FileNotFoundError, match="manifest.json is missing; run `mpm run tiny`"):
        verify.compare(setup, other)


def test_a_fresh_clone_is_verified_against_the_figures_it_came_with(home, capsys):
    "No record: the notebooks' own parameters; the committed manifest stays as it was"
    pipeline.run("tiny")
    setup = load("tiny")
    shutil.rmtree(setup.processed)
    before = (setup.figures / "manifest.json").read_bytes()
    assert cli.main(["verify", "tiny"]) == 0
    output = capsys.readouterr().out
    assert "tiny: no record of a run here; all notebooks run with their own parameters" in output
    assert output.endswith("identical         figures/01_map.png\ntiny: 1 of 1 as recorded\n")
    assert (setup.figures / "manifest.json").read_bytes() == before
    assert not list(setup.processed.rglob("*")), "the other run went elsewhere"
    other = {"figure": "01_map.png", "notebook": "01_first", "sha256": "0" * 64}
    artefacts.write_json(setup.figures / "manifest.json", [other])
    assert cli.main(["verify", "tiny"]) == 1


def test_the_command_runs_again_elsewhere_with_the_recorded_parameters(home, capsys, monkeypatch):
    "Exit code 0 for the same results, 1 where one changed; the recorded run stays as it was"
    pipeline.run("tiny", seed=3)
    before = (home / "data" / "processed" / "tiny" / "run.json").read_bytes()
    assert cli.main(["verify", "tiny"]) == 0
    output = capsys.readouterr().out
    assert "identical         figures/01_map.png\ntiny: 1 of 1 as recorded\n" in output
    assert (home / "data" / "processed" / "tiny" / "run.json").read_bytes() == before
    other = home / "other" / "figures" / "tiny"
    other.mkdir(parents=True)
    Image.new("RGB", (2, 2)).save(other / "01_map.png")
    Image.new("RGB", (2, 2), "white").save(home / "figures" / "tiny" / "01_map.png")
    assert cli.main(["verify", "tiny", "--against", str(home / "other")]) == 1
    assert "changed           figures/01_map.png  (100 % of" in capsys.readouterr().out
