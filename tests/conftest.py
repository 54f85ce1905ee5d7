import os
import sys
from pathlib import Path

import hypothesis
import matplotlib
import pytest
from xdist.scheduler import LoadScopeScheduling

matplotlib.use("Agg")
# the same examples at every run: a failure is a change of ours, never of luck
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")


@pytest.fixture(scope="module", autouse=True)
def outputs(tmp_path_factory):
    "Artefacts and figures of a file's tests go to a temporary folder, and no bars are drawn"
    folder = tmp_path_factory.mktemp("outputs")
    # of the file, not of each test: its fixtures that build an artefact once come after this one;
    # nor of the session: the notebooks that run after the tests have folders of their own
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPM_PROCESSED", str(folder / "processed"))
        patch.setenv("MPM_FIGURES", str(folder / "figures"))
        patch.setenv("MPM_RUN", "1")
        yield folder


class ByFile(LoadScopeScheduling):
    "Where two processes share the work, a file's tests stay together, and so do the notebooks"

    def _split_scope(self, nodeid):
        file = nodeid.split("::")[0]
        if file.endswith(".ipynb"):
            return "notebooks"
        # these two share a run of the demo, which takes minutes
        shared = ("test_end_to_end.py", "test_jupyterlab.py")
        return "demo run" if file.endswith(shared) else file


def pytest_xdist_make_scheduler(config, log):
    return ByFile(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    "Torch counts on one thread, however many an earlier test left: sums depend on their number"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def mirror():
    "Folder with copies of the public files; tests that need it skip, visibly, without one"
    folder = os.environ.get("MPM_MIRROR")
    if not folder:
        pytest.skip("MPM_MIRROR is not set: no copies of the public files to test on")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory):
    "Folder with artefacts and figures of the demo, whose notebooks ran on the smallest settings"
    from tiny_run import run_demo  # torch takes seconds to import, which few tests need

    folder = tmp_path_factory.mktemp("demo_run")
    run_demo(folder)
    return folder


def pytest_terminal_summary(terminalreporter):
    "Tabulate bad inputs, of the tests that passed, before the closing line"
    rows = [
        row
        for report in terminalreporter.stats.get("passed", [])
        for name, row in getattr(report, "user_properties", [])
        if name == "bad input"
    ]
    if rows:
        terminalreporter.section(f"{len(rows)} bad inputs: group, what was wrong, message")
        for row in sorted(rows):
            terminalreporter.write_line(row)
