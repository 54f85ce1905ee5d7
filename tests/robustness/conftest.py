import shutil

import ground
import pytest
from toy_notebooks import home as compendium  # noqa: F401  (a fixture)


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    "The sound study with its results, made once"
    home = tmp_path_factory.mktemp("sound") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPM_RUN", "1")
        ground.write_inputs(home)
        ground.use(home, patch)
        ground.write_results(home, patch)
    return home


@pytest.fixture
def home(template, tmp_path, monkeypatch):
    "A copy of the sound study and its results, to be spoilt"
    home = tmp_path / "home"
    shutil.copytree(template, home)
    ground.use(home, monkeypatch)
    return home


@pytest.fixture(scope="session")
def ran(tmp_path_factory):
    "Where the toy notebooks have run once"
    return tmp_path_factory.mktemp("ran") / "home"


@pytest.fixture
def tiny(compendium, ran, monkeypatch):
    "A compendium of two notebooks whose results are there"
    from mpm import pipeline

    monkeypatch.chdir(compendium)
    if ran.exists():
        shutil.copytree(ran, compendium, dirs_exist_ok=True)
    else:
        pipeline.run("tiny")
        shutil.copytree(compendium, ran)
    return compendium
