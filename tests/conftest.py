import os
from pathlib import Path

import hypothesis
import matplotlib
import pytest

matplotlib.use("Agg")
# the same examples at every run: a failure is a change of ours, never of luck
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")


@pytest.fixture(scope="session", autouse=True)
def outputs(tmp_path_factory):
    "Artefacts and figures of the tests go to a temporary folder, and no bars are drawn"
    folder = tmp_path_factory.mktemp("outputs")
    # of the session, not of each test: fixtures that build an artefact once come after this one
    with pytest.MonkeyPatch.context() as patch:
        # `make test` names a place where the notebooks' artefacts can be looked at afterwards
        for name in ("processed", "figures"):
            if f"MPM_{name.upper()}" not in os.environ:
                patch.setenv(f"MPM_{name.upper()}", str(folder / name))
        patch.setenv("MPM_RUN", "1")
        yield folder


@pytest.fixture(scope="session")
def mirror():
    "Folder with copies of the public files; tests that need it skip, visibly, without one"
    folder = os.environ.get("MPM_MIRROR")
    if not folder:
        pytest.skip("MPM_MIRROR is not set: no copies of the public files to test on")
    return Path(folder).resolve()
