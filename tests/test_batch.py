"""`mpm run --all`: which studies run, and how each ends."""

import sys

import pytest
from toy_notebooks import STUDY, home  # noqa: F401  (home is a fixture)

from mpm import __main__ as cli
from mpm import batch, fetch


@pytest.fixture
def many(home, monkeypatch):
    """Three studies: one fails, one lacks files; a "run" prints its words and is over."""
    studies = home / "data" / "studies"
    for name in ("broken", "absent"):
        (studies / f"{name}.yaml").write_text(STUDY.replace("name: tiny", f"name: {name}"))

    def get(study):
        if study.name == "absent":
            raise FileNotFoundError("study 'absent' lacks files; run `mpm fetch`\n  a.tif (layer)")

    monkeypatch.setattr(fetch, "fetch", get)
    fake = home / "python"
    fake.write_text(
        f'#!{sys.executable}\nimport sys\nprint(*sys.argv[1:])\nsys.exit("broken" in sys.argv)'
    )
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))


def test_every_study_at_hand_runs_and_others_say_why_not(many, capsys):
    "Side by side; lines bear the study's name, one that fails stops no other"
    outcome = batch.run_all(["--seed=3"], jobs=2)
    assert outcome == {
        "absent": "skipped: study 'absent' lacks files; run `mpm fetch` a.tif (layer)",
        "broken": "failed",
        "tiny": "done",
    }
    lines = capsys.readouterr().out.splitlines()
    assert (
        "tiny: -m mpm run tiny --seed=3" in lines and "broken: -m mpm run broken --seed=3" in lines
    )


def test_what_is_wrong_with_a_study_is_no_reason_to_skip_it(many, home, monkeypatch, capsys):  # noqa: F811
    "A mistake in its file and a wrong checksum are failures, exit code 1; no network is neither"
    (home / "data" / "studies" / "wrong.yaml").write_text("name: wrong\nlayers: [")

    def get(study):
        if study.name == "broken":
            raise ValueError("gravity.tif: what came was refused")
        if study.name == "absent":
            raise ConnectionError("gravity.tif: cannot download")

    monkeypatch.setattr(fetch, "fetch", get)
    outcome = batch.run_all([])
    assert outcome["wrong"].startswith(f"failed: {home / 'data' / 'studies' / 'wrong.yaml'} is not")
    assert outcome["broken"] == "failed: gravity.tif: what came was refused"
    assert outcome["absent"] == "skipped: gravity.tif: cannot download"
    assert outcome["tiny"] == "done"
    assert cli.main(["run", "--all"]) == 1


def test_no_jobs_are_refused(many):
    "The message repeats the option"
    with pytest.raises(ValueError, match="--jobs 0"):
        batch.run_all([], jobs=0)
