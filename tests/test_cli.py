"""The command line: messages, exit codes, and a help that comes at once."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from mpm import __main__ as cli
from mpm import (
    align,
    batch,
    cell_page,
    comparison,
    continent,
    crate,
    doctor,
    fetch,
    lawley2022,
    lawley_sample,
    pipeline,
    pretraining,
    status,
    study,
    verify,
)
from mpm.kernel import NotebookFailed


@pytest.fixture
def demo(monkeypatch, tmp_path):
    """The demo study, as far as the command line looks at it."""
    setup = SimpleNamespace(
        name="demo",
        path=tmp_path / "demo.yaml",
        raw=tmp_path / "raw",
        processed=tmp_path / "processed" / "demo",
        figures=tmp_path / "figures" / "demo",
    )
    monkeypatch.setattr(study, "load", lambda name: setup)
    monkeypatch.chdir(tmp_path)
    return setup


@pytest.fixture
def asked(monkeypatch):
    """What `mpm run` asks the pipeline for, without running anything."""
    calls = {}
    monkeypatch.setattr(pipeline, "run", lambda name, **options: calls.update(options, study=name))
    return calls


def test_help_comes_without_heavy_imports():
    "`mpm --help` lists the commands and imports neither torch nor numpy nor papermill"
    code = (
        "import sys\nfrom mpm.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as leave:\n    assert leave.code == 0\n"
        "heavy = {'torch', 'numpy', 'papermill', 'xarray', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert all(
        command in result.stdout
        for command in "check fetch run explain status verify new pretrain datacube".split()
    )


def test_python_m_mpm_is_the_same_command():
    "A misspelt study gives one line on stderr and exit code 2"
    words = [sys.executable, "-m", "mpm", "check", "dmo"]
    result = subprocess.run(words, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr == "error: no study is called 'dmo'; did you mean demo?\n"


def test_run_passes_every_option_on(asked, demo, capsys):
    "Values of --set are YAML; 1e-3 is a number although YAML takes it for text"
    words = "run demo --only 1,02 --target CD --seed 3 --preset paper --device cpu --force"
    values = ["rate=1e-3", "epochs=4", "wide=true", "layers=[a, 2, 5e-1]", "way=mean", "depth=null"]
    sets = [word for value in values for word in ("--set", value)]
    assert cli.main(words.split() + sets) == 0
    assert asked == {
        "study": "demo",
        "only": ["01", "02"],
        "target": "CD",
        "seed": 3,
        "preset": "paper",
        "device": "cpu",
        "force": True,
        "parameters": {},
        "settings": {
            "rate": 0.001,
            "epochs": 4,
            "wide": True,
            "layers": ["a", 2, 0.5],
            "way": "mean",
            "depth": None,
        },
    }


def test_a_file_of_parameters_gives_way_to_the_command_line(asked, demo, tmp_path):
    "Seed, preset and target may stand in it; other names go to the notebooks that declare them"
    file = tmp_path / "parameters.yaml"
    file.write_text("seed: 5\npreset: paper\nrate: 1e-3\nepochs: 4\n")
    words = ["run", "demo", "--parameters", str(file), "--seed", "3", "--set", "epochs=9"]
    assert cli.main(words) == 0
    assert (asked["seed"], asked["preset"], asked["target"]) == (3, "paper", None)
    assert asked["parameters"] == {"rate": 0.001, "epochs": 4} and asked["settings"] == {
        "epochs": 9
    }


@pytest.mark.parametrize("text", [None, "a: [1", "just a word", "rate: {a: 1}"])
def test_a_file_that_holds_no_parameters_is_refused(text, asked, demo, tmp_path, capsys):
    "Missing, broken, or something else: exit code 2, and the message names file or entry"
    file = tmp_path / "parameters.yaml"
    if text:
        file.write_text(text)
    assert cli.main(["run", "demo", "--parameters", str(file)]) == 2
    message = capsys.readouterr().err
    assert ("rate" if text and "rate" in text else str(file)) in message and not asked


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seed: abc", "`seed` takes a whole number, not 'abc'"),
        ("seed: true", "`seed` takes a whole number, not True"),
        ("seed: 1.5", "`seed` takes a whole number, not 1.5"),
        ("target: 5", "`target` takes a text, not 5"),
        ("preset: [paper]", "`preset` takes a text, not ['paper']"),
    ],
)
def test_options_in_a_file_have_the_types_of_the_command_line(
    line, message, asked, demo, tmp_path, capsys
):
    "One line that names file, option and value"
    file = tmp_path / "parameters.yaml"
    file.write_text(f"{line}\n")
    assert cli.main(["run", "demo", "--parameters", str(file)]) == 2
    assert capsys.readouterr().err == f"error: {file}: {message}\n" and not asked


def test_all_studies_get_the_same_options(monkeypatch, capsys):
    "One that fails gives exit code 1; `--all` and a study exclude each other"
    calls = []
    monkeypatch.setattr(
        batch, "run_all", lambda words, jobs: calls.append((words, jobs)) or {"tiny": "failed"}
    )
    words = ["run", "--all", "--jobs", "2", "--seed", "3", "--only", "01", "--set", "rate=1"]
    assert cli.main(words) == 1
    assert calls == [(["--device=auto", "--only=01", "--seed=3", "--set=rate=1"], 2)]
    assert cli.main(["run"]) == 2 and cli.main(["run", "demo", "--all"]) == 2
    assert "name one STUDY, or say --all" in capsys.readouterr().err
    assert cli.main(["run", "demo", "--jobs", "2"]) == 2
    assert capsys.readouterr().err.startswith("error: --jobs is how many studies run side by side")


def test_status_is_a_table_with_aligned_columns(monkeypatch, capsys):
    "Names of studies are passed on; a column is as wide as its widest entry"
    rows = [
        ["tiny", "01_first", "stale", "then", "inputs (a.tif)"],
        ["demo", "all", "never run", "", ""],
    ]
    table = pd.DataFrame(rows, columns=status.COLUMNS)
    monkeypatch.setattr(status, "table", lambda names: table[table["study"].isin(names)])
    assert cli.main(["status", "tiny", "demo"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "study  notebook  state      made  why",
        "tiny   01_first  stale      then  inputs (a.tif)",
        "demo   all       never run",
    ]


def test_run_ends_with_where_the_results_are(asked, demo, capsys):
    "The closing line names the folders, as short as the working folder allows"
    assert cli.main(["run", "demo"]) == 0
    closing = capsys.readouterr().out.splitlines()[-1]
    assert closing == (
        "demo: figures in figures/demo, maps and scores in processed/demo, "
        "executed notebooks in processed/demo/notebooks"
    )
    assert asked["only"] is None and asked["settings"] == {} and asked["seed"] is None


@pytest.mark.parametrize(
    "pair", ["epochs", "=3", "epochs={a: 1}", "epochs=[1", "epochs=2026-01-01"]
)
def test_a_setting_that_is_none_is_refused(pair, asked, demo, capsys):
    "Exit code 2, and the message repeats what was typed"
    assert cli.main(["run", "demo", "--set", pair]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: --set ") and pair in message and not asked


def test_a_failed_notebook_gives_exit_code_1(demo, monkeypatch, capsys):
    "The message of the pipeline goes to stderr, without a traceback"

    def fail(*_, **__):
        raise NotebookFailed("02_second stopped in cell 4")

    monkeypatch.setattr(pipeline, "run", fail)
    assert cli.main(["run", "demo"]) == 1
    assert capsys.readouterr().err == "error: 02_second stopped in cell 4\n"


def test_an_interrupt_says_how_to_resume(demo, monkeypatch, capsys):
    "Exit code 130, as shells expect"

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "run", interrupt)
    assert cli.main(["run", "demo"]) == 130
    assert "the same command resumes" in capsys.readouterr().err


def test_a_surprising_error_keeps_its_traceback(demo, monkeypatch):
    "A ValueError that no module of ours raised is a defect, not a message to the user"
    monkeypatch.setattr(align, "check", lambda setup: int("a number"))
    with pytest.raises(ValueError, match="invalid literal"):
        cli.main(["check", "demo"])


def test_a_defect_inside_of_mpm_keeps_its_traceback(demo, monkeypatch):
    "A KeyError of a look-up in one of our modules was not raised on purpose"
    bare = SimpleNamespace(notebooks={})
    monkeypatch.setattr(align, "check", lambda setup: crate._action("01", bare, [], {}, {}))
    with pytest.raises(KeyError, match="01"):
        cli.main(["check", "demo"])


def test_a_key_error_is_printed_without_quotes(demo, capsys, monkeypatch):
    "str() of a KeyError would show the repr of its message"
    whole = study.Study(
        name="own",
        regions={"west": {"crs": "EPSG:32631", "resolution": 1000, "bounds": (0, 0, 1000, 1000)}},
        layers=[{"name": "g", "group": "g", "units": "m", "file": "g.tif"}],
        deposits={"file": "d.csv"},
        targets={"MVT": {}},
        path="own.yaml",
    )
    monkeypatch.setattr(align, "check", lambda setup: whole.target("CD"))
    assert cli.main(["check", "demo"]) == 2
    assert capsys.readouterr().err == "error: study 'own' has no target 'CD'; it has MVT\n"


def test_check_prints_a_table_with_headings(demo, monkeypatch, capsys):
    "One row a layer, and a closing line"
    table = pd.DataFrame({"layer": ["gravity", "lab"], "units": ["mGal", "km"]})
    monkeypatch.setattr(align, "check", lambda setup: table)
    monkeypatch.setattr(doctor, "notes", lambda setup: ["two deposits only"])
    monkeypatch.setattr(align, "remarks", lambda setup, table: ["deposits in north: 3 MVT"])
    assert cli.main(["check", "demo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["layer", "units"] and lines[2].split() == ["gravity", "mGal"]
    assert lines[-3:-1] == ["note: deposits in north: 3 MVT", "note: two deposits only"]
    assert lines[-1] == "demo: all 2 layers can be read"


def test_fetch_says_where_the_files_are(demo, monkeypatch, capsys):
    "Number of files and folder"
    monkeypatch.setattr(fetch, "fetch", lambda setup: [demo.raw / "gravity.tif"])
    assert cli.main(["fetch", "demo"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "demo: 1 files in raw"


def test_pretrain_passes_every_option_on(demo, monkeypatch):
    "Those that are not given are the function's own"
    asked, own = [], pretraining.pretrain_study.__kwdefaults__
    monkeypatch.setattr(
        pretraining, "pretrain_study", lambda setup, **options: asked.append((setup.name, options))
    )
    words = "--preset paper --split blocks --fold 2 --seed 3 --steps 9 --device cpu --devices 8"
    assert cli.main(["pretrain", "demo"]) == 0
    assert cli.main(["pretrain", "demo", *words.split(), "--nodes", "4"]) == 0
    assert asked[0] == ("demo", own)
    assert asked[1][1] == {
        "preset": "paper",
        "split": "blocks",
        "fold": 2,
        "seed": 3,
        "steps": 9,
        "device": "cpu",
        "devices": 8,
        "nodes": 4,
    }


def test_pretrain_explains_how_to_use_a_cluster(capsys):
    "The help has one command for SLURM and one for torchrun, that can be copied"
    with pytest.raises(SystemExit):
        cli.main(["pretrain", "--help"])
    said = capsys.readouterr().out
    assert "srun --nodes 4" in said and "torchrun --nnodes 4" in said
    assert said.count("mpm pretrain STUDY --devices 8 --nodes 4") == 2


def test_pretrain_says_which_notebook_is_missing(demo, monkeypatch, capsys):
    "Exit code 2"
    demo.regions = {"north": None}
    assert cli.main(["pretrain", "demo"]) == 2
    assert "run notebook 01_data_preparation" in capsys.readouterr().err


def test_datacube_build_says_what_it_made(tmp_path, capsys):
    "A table of labels a type, counted beside the published numbers, and the folder"
    lawley_sample.write_sample(tmp_path / "sample.csv", 300)
    words = ["datacube", "build", str(tmp_path / "sample.csv"), str(tmp_path / "out")]
    assert cli.main([*words, "--features", "none"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:3] == ["type", "labelled", "published"]
    assert [line.split()[0] for line in lines[2:4]] == ["MVT", "CD"] and "2027" in lines[2]
    assert lines[-1] == f"datacube.parquet, deposits.csv in {tmp_path / 'out'}"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "datacube.parquet",
        "deposits.csv",
    ]


def test_datacube_build_passes_its_options_on(tmp_path, capsys, monkeypatch):
    "Cells of 0.02 degrees and the preferred features unless told otherwise"
    asked = []
    monkeypatch.setattr(
        lawley2022, "build", lambda *places, **options: asked.append(options) or pd.DataFrame()
    )
    words = ["datacube", "build", "cube.csv", "out"]
    assert cli.main(words) == 0
    assert cli.main([*words, "--degrees", "0.5", "--features", "baseline"]) == 0
    assert asked == [
        {"degrees": 0.02, "words": "preferred"},
        {"degrees": 0.5, "words": "baseline"},
    ]
    assert capsys.readouterr().out.splitlines()[-1].endswith("a raster cube a continent in out")


def test_datacube_build_refuses_a_label(tmp_path, capsys):
    "Exit code 2, and nothing is made"
    words = ["datacube", "build", "cube.csv", str(tmp_path / "out"), "--features", "Label_MVT"]
    assert cli.main(words) == 2
    assert capsys.readouterr().err.startswith("error: Label_MVT is a label or made from one")
    assert not (tmp_path / "out").exists()


def test_map_asks_for_the_tiles_of_a_region(monkeypatch, capsys):
    """With the network of another study, whose first target is predicted"""
    calls = []

    def draw(study, target, *, network, **options):
        calls.append((study.name, target, network.name, options))
        return [Path.cwd() / "likelihood.tif"]

    monkeypatch.setattr(continent, "draw", draw)
    assert cli.main(["map", "znpb", "--network", "demo", "--tile", "64", "--seed", "3"]) == 0
    assert cli.main(["map", "demo", "--target", "CD"]) == 0
    defaults = {"tile": 1024, "samples": 100, "share": 0.1, "every": 10, "seed": 7}
    defaults |= {"device": "auto"}
    assert calls == [
        ("znpb", "MVT", "demo", defaults | {"tile": 64, "seed": 3}),
        ("demo", "CD", "demo", defaults),
    ]
    assert capsys.readouterr().out.splitlines() == ["likelihood.tif"] * 2


def test_explain_asks_for_a_page(demo, monkeypatch, capsys):
    "Of the place, west being negative, and says where it lies"
    calls = []

    def write(study, longitude, latitude, **options):
        calls.append((study, longitude, latitude, options))
        return Path.cwd() / "page.png"

    monkeypatch.setattr(cell_page, "write", write)
    assert cli.main(["explain", "demo", "--at", "-93.5", "-41", "--target", "CD"]) == 0
    options = {"target": "CD", "out": None, "seed": None, "device": "auto"}
    assert calls == [("demo", -93.5, -41, options)]
    assert capsys.readouterr().out == "explained in page.png\n"


def test_compare_passes_every_option_on(demo, monkeypatch, capsys):
    "Lists are parted at commas; the splits become runs, a fold or a region each"
    asked = {}
    demo.regions = {"north": None, "south": None}

    def compare(setup, plan, **options):
        asked.update(options, plan=plan)
        return ["row"] * 4

    monkeypatch.setattr(comparison, "compare_study", compare)
    words = "--variants random\xa0network --heads probe,full --splits blocks,region --folds 2"
    words += " --choices dropout\xa00.2 --targets Au"
    more = "--seeds 1,2 --preset paper --steps 9 --device cpu --without Au:north --control plain"
    given = [word.replace("\xa0", " ") for word in words.split(" ") + more.split(" ")]
    assert cli.main(["compare", "demo", *given]) == 0
    plan = asked.pop("plan")
    assert [variant.name for variant in plan.variants] == ["random network"]
    assert plan.runs == (("blocks", 0), ("blocks", 1), ("region", 0), ("region", 1))
    assert plan.heads == ("probe", "full") and plan.seeds == (1, 2)
    assert plan.choices == ("dropout 0.2",) and plan.targets == ("Au",)
    assert (plan.preset, plan.steps, plan.without) == ("paper", 9, ("Au", "north"))
    assert asked == {"folds": 2, "control": "plain", "device": "cpu"}
    assert capsys.readouterr().out == "demo: 4 rows in data/comparisons/demo.csv\n"


def test_compare_refuses_a_split_without_backbones(demo, capsys):
    "Of its own splits it lists both"
    demo.regions = {"north": None}
    assert cli.main(["compare", "demo", "--splits", "random"]) == 2
    assert capsys.readouterr().err == "error: --splits 'random' is none of blocks, region\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--seeds 7,a", "--seeds 'a' is no whole number; give e.g. --seeds 7,8,9"),
        ("--seeds -1", "--seeds '-1' is no whole number; give e.g. --seeds 7,8,9"),
        ("--without Au", "--without 'Au' is not TARGET:REGION"),
        ("--without :north", "--without ':north' is not TARGET:REGION"),
    ],
)
def test_compare_names_the_option_that_is_wrong(words, message, demo, capsys):
    "Before anything is compared"
    demo.regions = {"north": None, "south": None}
    option, value = words.split()
    assert cli.main(["compare", "demo", f"{option}={value}"]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.fixture
def again(demo, monkeypatch):
    """A study that is run again, with one of two files as recorded; the folder of that run."""
    folders = []

    def compare(setup, folder, *, tolerance):
        folders.append((folder, tolerance))
        same, other = verify.Verdict("a.png", "identical"), verify.Verdict("b.csv", "changed", "x")
        return [same, other]

    monkeypatch.setattr(verify, "rerun", lambda setup, folder: folders.append(folder))
    monkeypatch.setattr(verify, "compare", compare)
    return folders


def test_verify_has_a_line_a_file_and_fails_if_one_changed(again, capsys):
    "The run goes to a folder of its own, which is compared, and removed in the end"
    assert cli.main(["verify", "demo", "--tolerance", "0.5"]) == 1
    assert again == [again[0], (again[0], 0.5)] and not again[0].exists()
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "identical         a.png",
        "changed           b.csv  (x)",
        "demo: 1 of 2 as recorded",
    ]


def test_verify_against_a_folder_runs_nothing(again, tmp_path):
    "It compares with what lies there"
    assert cli.main(["verify", "demo", "--against", str(tmp_path)]) == 1
    assert again == [(tmp_path, 1e-6)]


def test_a_notebook_that_fails_ends_verify(again, monkeypatch, capsys):
    "Nothing is compared"

    def fail(setup, folder):
        raise NotebookFailed("02_mae_pretraining stopped in cell 3")

    monkeypatch.setattr(verify, "rerun", fail)
    assert cli.main(["verify", "demo"]) == 1
    assert not again
    assert capsys.readouterr().err == "error: 02_mae_pretraining stopped in cell 3\n"


def test_new_says_what_it_wrote_and_what_comes_next(tmp_path, monkeypatch, capsys):
    "A study of one's own, outside of the compendium"
    monkeypatch.chdir(tmp_path)
    assert cli.main(["new", "my_region"]) == 0
    *wrote, last = capsys.readouterr().out.splitlines()
    paths = [Path(line.removeprefix("wrote ")) for line in wrote]
    assert len(paths) == 3 and all(path.is_file() for path in paths)
    assert last == f"next: put your files beside the README, then `mpm check {paths[0]}`"


def test_a_text_that_begins_like_a_number_stays_text(asked, demo):
    "3rd is no number, and neither is a date in pieces"
    assert cli.main("run demo --set which=3rd --set when=2020-13".split()) == 0
    assert asked["settings"] == {"which": "3rd", "when": "2020-13"}
