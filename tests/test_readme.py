"""Every command of the README and of docs/running.md exists, with the options given there."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from mpm import __main__ as cli
from mpm.study import studies

ROOT = Path(__file__).resolve().parents[1]
PLACEHOLDERS = {"STUDY": "demo", "NODE": "node", "HOST": "host"}


def commands(name):
    """Return the command lines of a document's code blocks, without comments and prompts."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [" ".join(map(shlex.quote, words)) for words in lines if words]


LINES = commands("README.md") + commands("docs/running.md")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def words_of_mpm(line):
    """Return what follows `mpm` in a command line; none if it is another program's."""
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(line)]
    places = [k for k, word in enumerate(words) if Path(word).name == "mpm"]
    return words[places[0] + 1 :] if places else None


def test_the_readme_has_commands():
    "Else the tests below see none"
    assert sum(words_of_mpm(line) is not None for line in LINES) > 10
    assert sum(line.startswith("make") for line in LINES) >= 2


@pytest.mark.parametrize("line", [line for line in LINES if words_of_mpm(line)])
def test_mpm_takes_the_command(line):
    "Command and options are known, and a study that is named is there"
    arguments = cli._parser().parse_args(words_of_mpm(line))
    assert callable(arguments.command)
    study = getattr(arguments, "study", None)
    for name in [study] if isinstance(study, str) else study or []:
        assert name in studies() or name == "my_region"


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("make")])
def test_make_takes_the_command(line):
    "The target exists; nothing is run"
    words = shlex.split(line)
    result = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_make_targets_named_in_a_sentence_exist():
    "Those of documents that people read first"
    for name in ["README.md", "CONTRIBUTING.md", "docs/running.md"]:
        text = (ROOT / name).read_text(encoding="utf-8")
        for line in re.findall(r"`(make [^`]+)`", text):
            test_make_takes_the_command(line)


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
