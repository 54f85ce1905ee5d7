"""The notebooks in JupyterLab, in a browser: opened as committed, and run from top to bottom."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from helpers import chromium

from mpm import steps

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
FLAGS += " --disable-background-networking --disable-component-update --window-size=1440,1100"
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    # cells out of sight are on the page, too
    "notebook-extension/tracker": {"windowingMode": "none"},
}
# of bars and other widgets that cannot be drawn, and of bars in letters that were not cleared
BROKEN = re.compile(r"(Error displaying|Error creating|Loading) widget|model not found|\d%\|")

# Run as committed, which takes minutes each, and in this order, as each reads what those before it
# have written. By default all run, on the smallest settings and on what such a run has left.
AS_COMMITTED = os.environ.get("MPM_LAB_RUNS", "").split()

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return each.getsockname()[1]


def settle(home: Path) -> dict:
    "Folders of JupyterLab's own, whatever the user has set; returns the environment"
    for name, content in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    page = home / "config" / "labconfig" / "page_config.json"
    page.parent.mkdir(parents=True)
    # it complains of its own when a notebook is closed before it has asked the kernel all it would
    page.write_text('{"disabledExtensions": {"@jupyterlab/debugger-extension": true}}')
    own = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "run"}
    own |= {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    own |= {"MPM_PROCESSED": "processed", "MPM_FIGURES": "figures", "IPYTHONDIR": "ipython"}
    # as a person sees it: with progress bars, and this checkout's package
    kept = {name: value for name, value in os.environ.items() if name != "MPM_RUN"}
    paths = {"PYTHONPATH": str(ROOT), "MPM_HOME": str(ROOT), "MPM_THREADS": "1"}
    return kept | {name: str(home / folder) for name, folder in own.items()} | paths


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "Folder of all that JupyterLab writes, with a copy of the notebooks"
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", home / "work" / "notebooks")
    return home


@pytest.fixture(scope="module")
def address(home):
    "Of a server on a copy of the notebooks"
    port = free_port()
    options = {
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.root_dir": home / "work",
        "IdentityProvider.token": "once",
        "LabApp.expose_app_in_browser": True,
        "LabApp.news_url": "",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--{name}={value}" for name, value in options.items()]
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, env=settle(home), cwd=home, stdout=log, stderr=log)
    yield f"http://127.0.0.1:{port}/lab?token=once"
    server.terminate()
    server.wait(60)


@pytest.fixture(scope="module")
def browser(address, tmp_path_factory):
    made = chromium(tmp_path_factory.mktemp("profile"), FLAGS, "JupyterLab is not opened")
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.support.ui import WebDriverWait

    made.set_script_timeout(300)

    def loaded(window):
        try:  # the server takes seconds to start
            window.execute_script("window.jupyterapp || location.replace(arguments[0])", address)
            return window.execute_script("return !!window.jupyterapp")
        except WebDriverException:
            return window.get(address)

    WebDriverWait(made, 120, poll_frequency=3).until(loaded)
    wait(made, "jupyterapp.restored")
    made.get_log("browser")
    yield made
    made.quit()


def wait(browser, promise, *values):
    "Return what a promise of JavaScript comes to"
    found = browser.execute_async_script(
        f"""const done = arguments[arguments.length - 1];
        ({promise}).then((found) => done([true, found]), (error) => done([false, `${{error}}`]));
        """,
        *values,
    )
    assert found[0], found[1]
    return found[1]


OPEN = """jupyterapp.commands.execute("docmanager:open", {path: arguments[0]}).then(async (it) => {
    window.panel = it;
    await panel.revealed;
    await panel.context.sessionContext.ready;
    await panel.context.sessionContext.session.kernel.info;  // it answers
})"""
RUN_ALL = """window.ended = "";
jupyterapp.commands.execute("notebook:run-all-cells")
    .then(() => { window.ended = "finished"; }, (error) => { window.ended = `${error}`; });
"""
STOP = "panel.context.sessionContext.shutdown()"
CLOSE = """
panel.context.model.dirty = false;  // else it asks whether to save
panel.dispose();
"""
LISTED = """
const contents = document.querySelector("#table-of-contents");
return contents.querySelector("h2").textContent === arguments[0]
    && contents.querySelectorAll(".jp-tocItem-content").length > 3;
"""
SEEN = """
const node = panel.content.node, all = (what) => [...node.querySelectorAll(what)];
const right = (element) => element.getBoundingClientRect().right;
const fits = (image) => image.naturalWidth > 0 && right(image) <= right(image.closest(".jp-Cell"));
return {
    dialogs: document.querySelectorAll(".jp-Dialog").length,
    text: node.textContent,
    figures: all(".jp-OutputArea img").length,
    outside: all(".jp-OutputArea img").filter((image) => !fits(image)).length,
    loud: all('[data-mime-type$="jupyter.stderr"]').map((area) => area.textContent),
    errors: all('[data-mime-type$="jupyter.error"]').map((area) => area.textContent),
    counts: panel.content.widgets.filter((cell) => cell.model.type === "code")
        .map((cell) => cell.model.executionCount),
    contents: [...document.querySelectorAll(".jp-tocItem-content")].map((item) => item.textContent),
};
"""


@pytest.fixture
def opened(browser):
    "Call with a notebook's place: it is opened, and looked at once its contents are listed"
    from selenium.webdriver.support.ui import WebDriverWait

    def open_it(place):
        wait(browser, OPEN, place)
        browser.execute_script("return panel.content.node.querySelector('.jp-Cell')").click()
        wait(browser, "jupyterapp.commands.execute('toc:show-panel')")
        name = place.rpartition("/")[2]
        WebDriverWait(browser, 60).until(lambda window: window.execute_script(LISTED, name))
        return look(browser)

    return open_it


@pytest.fixture(scope="module")
def folder(home, browser, request):
    "Of the notebooks to run: as committed, or with the settings of a tiny run on its artefacts"
    if AS_COMMITTED:
        return "notebooks"
    from tiny_run import TINY

    for name in ("processed", "figures"):
        shutil.copytree(request.getfixturevalue("demo_run") / name, home / name)
    (home / "work" / "tiny").mkdir()
    for path in NOTEBOOKS:
        own, notebook = steps.defaults(path), nbformat.read(path, as_version=4)
        own |= {name: value for name, value in TINY.items() if name in own}
        notebook.cells[1].source = "\n".join(f"{name} = {value!r}" for name, value in own.items())
        nbformat.write(notebook, home / "work" / "tiny" / path.name)
    return "tiny"


def look(browser) -> SimpleNamespace:
    return SimpleNamespace(**browser.execute_script(SEEN))


def loud(browser) -> list[str]:
    "What the browser's console complained of since it was read last, but for a slow machine"
    entries = browser.get_log("browser")
    heard = [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]
    return [message for message in heard if "to activate" not in message]


def headings(notebook) -> list[str]:
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return re.findall(r"^#+ +(.+?) *$", "\n\n".join(texts), flags=re.MULTILINE)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_opens_as_it_should(path, opened, browser):
    "No dialog or complaint, all headings in the table of contents, all figures within the page"
    notebook = nbformat.read(path, as_version=4)
    shown = opened(f"notebooks/{path.name}")
    assert shown.contents == headings(notebook) and len(shown.contents) > 3
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert shown.figures == sum("image/png" in output.get("data", {}) for output in outputs)
    assert (shown.dialogs, shown.outside, shown.loud, shown.errors) == (0, 0, [], [])
    assert not BROKEN.search(shown.text)
    assert loud(browser) == []


@pytest.mark.parametrize("name", AS_COMMITTED or [path.stem for path in NOTEBOOKS])
def test_a_notebook_runs_from_top_to_bottom(name, folder, opened, browser):
    "Every cell, without errors or warnings; its bars are gone, also when it is opened again"
    from selenium.webdriver.support.ui import WebDriverWait

    place = f"{folder}/{name}.ipynb"
    opened(place)
    browser.execute_script(RUN_ALL)  # not waited for: a question to the browser may take 2 minutes
    ended = WebDriverWait(browser, 1800).until(lambda it: it.execute_script("return window.ended"))
    assert ended == "finished"
    shown = look(browser)
    assert shown.counts == list(range(1, len(shown.counts) + 1))
    assert (shown.loud, shown.errors) == ([], []) and "all checks passed" in shown.text
    assert shown.outside == 0 and shown.figures > (10 if name.startswith("01") else 1)
    wait(browser, "panel.context.save()")
    wait(browser, STOP)
    browser.execute_script(CLOSE)
    time.sleep(2)  # the console may tell of what was asked of the kernel that has gone
    browser.get_log("browser")
    again = opened(place)
    assert (again.counts, again.dialogs, again.loud) == (shown.counts, 0, [])
    assert again.contents == headings(nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", 4))
    assert not BROKEN.search(again.text)
    assert loud(browser) == []
