import shutil

import ground
import pytest


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
