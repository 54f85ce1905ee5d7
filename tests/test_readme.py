"""Every command of the README and of docs/running.md is run, or as much of it as seconds allow.

What would take minutes or another machine is left out (`LEFT_OUT`). The report shows each such
line as skipped, with the reason; its study, options and names still go through the code that
checks them.
"""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyproj
import pytest
from helpers import toy_setting
from test_new_study import fill
from toy_notebooks import home  # noqa: F401  (a fixture)

from mpm import __main__ as cli
from mpm import (
    batch,
    cell_page,
    comparison,
    continent,
    lawley_sample,
    mae,
    pipeline,
    pretraining,
    steps,
)
from mpm.study import load, studies

ROOT = Path(__file__).resolve().parents[1]
PLACEHOLDERS = {"STUDY": "demo", "NODE": "node", "HOST": "host"}
LEFT_OUT = {
    "mpm run": "notebooks run for minutes, see test_end_to_end.py; which would run is checked",
    "mpm pretrain": "test_pretraining.py trains; study and options are checked",
    "mpm map": "test_continent.py draws; study and options are checked",
    "mpm compare": "test_comparison.py trains; study, variants and options are checked",
    "srun": "there is no SLURM here; what it starts is checked as `mpm pretrain`",
    "dask worker": "it would wait for a scheduler; its options are checked",
    "dask scheduler": "it would run until it is stopped; its options are checked",
    "make": "it would install packages or take minutes; what it would call is checked",
    "torchrun": "it would wait for other machines; its options are checked",
}


def commands(name):
    """Return the command lines of a document's code blocks, without comments and prompts."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [" ".join(map(shlex.quote, words)) for words in lines if words]


LINES = list(dict.fromkeys(commands("README.md") + commands("docs/running.md")))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def words_of_mpm(line):
    """Return what follows `mpm` in a command line; none if it is another program's."""
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(line)]
    places = [k for k, word in enumerate(words) if Path(word).name == "mpm"]
    return words[places[0] + 1 :] if places else None


def program(line):
    """Return what a command line starts: "mpm run", "make", "dask worker", "srun" ..."""
    words = [word for word in shlex.split(line) if not re.match(r"[A-Z_]+=", word)]
    name = Path(words[0]).name
    return f"{name} {words[1]}" if name in ("mpm", "dask") else name


def lines_of(*programs):
    """Return the command lines of some programs; a test of none would see nothing."""
    found = [line for line in LINES if program(line) in programs]
    assert found, programs
    return found


RUN = {"mpm new", "mpm check", "mpm status", "mpm verify", "mpm explain", "mpm datacube"}


def test_no_command_is_forgotten():
    "Each is run, checked, or skipped for a reason; what is named so is used"
    assert {program(line) for line in LINES} == RUN | set(LEFT_OUT)
    assert sum(words_of_mpm(line) is not None for line in LINES) > 10


@pytest.mark.parametrize("line", lines_of(*LEFT_OUT))
def test_what_is_not_run_is_said(line):
    "The report of the tests shows each such line with its reason"
    pytest.skip(f"not run: {line}: {LEFT_OUT[program(line)]}")


# In a compendium of one's own


@pytest.fixture
def compendium(tmp_path, monkeypatch):
    """A working folder with the notebooks and studies of the compendium, and no data."""
    (tmp_path / "data").mkdir()
    for name in ("registry.csv", "lawley2022.json", "studies"):
        place = ROOT / "data" / name
        copy = shutil.copytree if place.is_dir() else shutil.copy
        copy(place, tmp_path / "data" / name)
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    for name in ("MPM_PROCESSED", "MPM_FIGURES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MPM_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def chosen(monkeypatch):
    """What `mpm run` would run, by study: its notebooks with their parameters; nothing runs."""
    found = {}

    def keep(setup, steps, force=False):
        found[setup.name] = steps

    monkeypatch.setattr(pipeline, "run_steps", keep)
    return found


def test_ones_own_ground_goes_from_new_to_run(compendium, chosen, capsys):
    "The lines in the README's order: a study begins, its files are checked, its run is planned"
    own = list(dict.fromkeys(line for line in commands("README.md") if "my_region" in line))
    assert [program(line) for line in own] == ["mpm new", "mpm check", "mpm run"]
    for line in own:
        assert cli.main(words_of_mpm(line)) == 0, line
        if program(line) == "mpm new":
            fill(compendium / "data" / "raw" / "my_region")
    assert "my_region: all 4 layers can be read" in capsys.readouterr().out
    assert [step.source for step in chosen["my_region"]] == steps.notebooks()
    assert all(step.parameters["study"] == "my_region" for step in chosen["my_region"])


@pytest.mark.parametrize("line", [line for line in lines_of("mpm run") if "my_region" not in line])
def test_a_run_is_planned_as_the_line_says(line, compendium, chosen, monkeypatch):
    "Study, target, notebook numbers and settings are known; each setting reaches a notebook"
    monkeypatch.setattr(batch, "_obstacle", lambda name: "")
    monkeypatch.setattr(batch, "_run", lambda name, words, lock: cli.main(["run", name, *words]))
    words = words_of_mpm(line)
    assert cli.main(words) == 0
    asked = cli._parser().parse_args(words)
    assert set(chosen) == set(studies() if asked.all else [asked.study])
    for name, planned in chosen.items():
        numbers = asked.only.split(",") if asked.only else [f"0{k}" for k in (1, 2, 3, 4, 5, 6, 0)]
        assert [step.name[:2] for step in planned] == numbers
        given = {key: value for step in planned for key, value in step.passed.items()}
        for pair in asked.settings:
            key, _, value = pair.partition("=")
            assert str(given[key]) == value
        assert given["target"] == (asked.target or next(iter(load(name).targets)))
        assert given.get("seed") == asked.seed


def test_status_lists_every_study(compendium, capsys):
    "As it is after a fresh clone: each notebook of each study, never run"
    for line in lines_of("mpm status"):
        assert cli.main(words_of_mpm(line)) == 0
        rows = [row.split() for row in capsys.readouterr().out.splitlines()[1:]]
        assert len(rows) == len(studies()) * len(steps.notebooks())
        assert {row[0] for row in rows} == set(studies())


def test_verify_runs_again_and_compares(home, capsys):  # noqa: F811
    "The line itself, on two toy notebooks and a study called as the one it names"
    for line in lines_of("mpm verify"):
        words = words_of_mpm(line)
        place = home / "data" / "studies" / f"{words[-1]}.yaml"
        tiny = (home / "data" / "studies" / "tiny.yaml").read_text()
        place.write_text(tiny.replace("name: tiny", f"name: {words[-1]}"))
        assert cli.main(["run", words[-1]]) == 0 and cli.main(words) == 0
        assert f"{words[-1]}: 1 of 1 as recorded" in capsys.readouterr().out


def test_explain_draws_the_page_of_the_place(compendium, monkeypatch, capsys):
    "The place lies in a region of the study; its page is drawn of a toy network that lies there"
    setting = toy_setting()
    monkeypatch.setattr(cell_page, "open_setting", lambda *_, **__: setting)
    for line in lines_of("mpm explain"):
        words = words_of_mpm(line)
        longitude, latitude = map(float, words[words.index("--at") + 1 :][:2])
        found = []
        for name, region in load(words[1]).regions.items():
            there = pyproj.Transformer.from_crs("EPSG:4326", region.crs, always_xy=True)
            x, y = there.transform(longitude, latitude)
            west, south, east, north = region.bounds
            found += [name] if west < x < east and south < y < north else []
        assert len(found) == 1
        monkeypatch.setattr(cell_page, "find", lambda *_: 0)
        assert cli.main(words) == 0
        place = compendium / capsys.readouterr().out.removeprefix("explained in ").strip()
        assert place.read_bytes().startswith(b"\x89PNG") and f"{latitude:.4f}" in place.name


def test_the_full_data_cube_is_built(compendium, capsys):
    "From a table of 300 invented rows under the name of the published one"
    for line in lines_of("mpm datacube"):
        words = words_of_mpm(line)
        lawley_sample.write_sample(compendium / words[2], 300)
        assert cli.main(words) == 0
        made = {path.name for path in (compendium / words[3]).iterdir()}
        assert {"datacube.parquet", "deposits.csv"} < made
        assert (compendium / words[3]).resolve() == load("lawley2022").raw


@pytest.mark.parametrize(
    "line", [line for line in LINES if "pretrain" in (words_of_mpm(line) or "")]
)
def test_pretraining_is_asked_for_as_the_line_says(line, compendium, monkeypatch):
    "Study, preset and counts are known, under srun and torchrun, too"
    asked = []
    monkeypatch.setattr(
        pretraining, "pretrain_study", lambda setup, **options: asked.append((setup, options))
    )
    assert cli.main(words_of_mpm(line)) == 0
    ((setup, options),) = asked
    assert setup.name in studies() and options["preset"] in mae.PRESETS
    assert options["devices"] == 8 and options["nodes"] == (
        1 if program(line) == "mpm pretrain" else 4
    )


@pytest.mark.parametrize("line", lines_of("mpm compare"))
def test_a_comparison_is_asked_for_as_the_line_says(line, compendium, monkeypatch):
    "Variants and heads are known; nothing is trained"
    plans = []
    monkeypatch.setattr(
        comparison, "compare_study", lambda setup, plan, **_: plans.append(plan) or []
    )
    assert cli.main(words_of_mpm(line)) == 0
    (plan,) = plans
    assert len(plan.variants) == 2 and set(plan.heads) == {"probe", "full"}
    assert plan.seeds == (7, 8, 9)


@pytest.mark.parametrize("line", lines_of("mpm map"))
def test_a_map_is_asked_for_as_the_line_says(line, compendium, monkeypatch):
    "Study, network and options are known; nothing is drawn"
    asked = []
    monkeypatch.setattr(
        continent, "draw", lambda *given, **options: asked.append((given, options)) or []
    )
    assert cli.main(words_of_mpm(line)) == 0
    ((_, options),) = asked
    assert (options["tile"], options["share"], options["every"]) == (1024, 0.1, 10)


# Other programs


def options_of(line):
    return [word.partition("=")[0] for word in shlex.split(line) if word.startswith("--")]


@pytest.mark.parametrize("line", lines_of("dask scheduler", "dask worker"))
def test_dask_knows_the_options(line):
    "Its own help lists each of them"
    said = subprocess.run(
        [sys.executable, "-m", "dask", program(line).split()[1], "--help"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert all(re.search(rf"{option}\b", said) for option in options_of(line))


@pytest.mark.parametrize("line", lines_of("torchrun"))
def test_torchrun_takes_the_line(line):
    "Its own parser reads it, and leaves to mpm what is mpm's"
    from torch.distributed.run import get_args_parser

    read = get_args_parser().parse_args(shlex.split(line)[1:])
    assert (read.nnodes, read.nproc_per_node, read.module) == ("4", "8", True)
    assert [read.training_script, *read.training_script_args[:1]] == ["mpm", "pretrain"]


@pytest.mark.parametrize("line", lines_of("make"))
def test_make_takes_the_command(line, chosen, monkeypatch):
    "The target exists, and each Python module that it would call; a run would be planned"
    monkeypatch.setenv("MPM_HOME", str(ROOT))
    words = shlex.split(line)
    result = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    called = re.findall(r"\.venv/bin/python -m ([\w.]+)([^;|&\n]*)", result.stdout)
    assert [name for name, _ in called if importlib.util.find_spec(name) is None] == []
    if words[1] not in ("clean", "help"):
        assert set(name for name, _ in called) - {"venv", "pip"} or " -c " in result.stdout
    for name, rest in called:
        if name == "mpm" and rest.split()[0] == "run":
            assert cli.main(shlex.split(rest)) == 0 and len(chosen) == 1


def test_make_targets_named_in_a_sentence_exist(chosen, monkeypatch):
    "Those of documents that people read first"
    for name in ["README.md", "CONTRIBUTING.md", "docs/running.md"]:
        text = (ROOT / name).read_text(encoding="utf-8")
        for line in re.findall(r"`(make [^`]+)`", text):
            test_make_takes_the_command(line, chosen, monkeypatch)
            chosen.clear()


def test_the_readme_is_short_and_narrow():
    "Read in a minute or two: tables and pictures aside, lines of 105 characters and 1,200 words"
    prose = [line for line in README.splitlines() if not line.startswith(("|", "!", "<!--"))]
    assert max(map(len, prose)) <= 105
    assert sum(len(line.split()) for line in prose) < 1200


def test_every_study_and_notebook_is_in_the_readme():
    "One row each"
    for name in studies():
        assert f"| `{name}` |" in README
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert f"| [{path.stem}](notebooks/{path.name}) |" in README


def test_a_badge_needs_an_address():
    "Binder can be linked to once CITATION.cff says where the repository is, and then should be"
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert ("repository-code:" in citation) == ("mybinder.org/v2/" in README)


def test_a_misspelt_option_would_be_seen(capsys):
    "The parser refuses what it does not know"
    with pytest.raises(SystemExit):
        cli._parser().parse_args(words_of_mpm(".venv/bin/mpm run demo --sed 3"))
    assert "unrecognized arguments" in capsys.readouterr().err
