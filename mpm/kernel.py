"""Execute one notebook, and watch it: a sign of life, its peak memory, and where it stopped."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import papermill
import psutil
from jupyter_client.kernelspec import NoSuchKernel
from nbclient.exceptions import DeadKernelError
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError

KERNEL = "python3"  # that of the Python that runs this, whatever a notebook was saved with
FOLDERS = ("MPM_HOME", "MPM_PROCESSED", "MPM_FIGURES", "MPM_MIRROR")
SAMPLE_S = 0.2  # between two looks at the memory
ERASE = "\r\x1b[K"  # what a terminal takes for "write this line again"
LINE_S = 30.0  # between two progress lines where lines cannot be overwritten


class NotebookFailed(Exception):
    """A notebook stopped with an error; the message says where and why."""


class Watcher:
    """Context in which a notebook runs: shows progress, samples memory.

    Attributes
    ----------
    peak : int
        Largest resident memory of the kernel and its children (bytes).
    seconds : float
        Wall time (s), once the context is left.
    current : int
        Index of the cell that runs.
    cells : list
        The notebook's cells, live; set by the engine.
    """

    def __init__(self, notebook: str):
        self.notebook = notebook
        self.cells: list = []
        self.current = 0
        self.peak = 0
        self.seconds = 0.0
        self._in_place = sys.stdout.isatty()
        self._others = {child.pid for child in psutil.Process().children(recursive=True)}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watcher":
        print(f"{self.notebook} ...", end="" if self._in_place else "\n", flush=True)
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.seconds = time.monotonic() - self._began

    def report(self, text: str) -> None:
        """Print the notebook's closing line."""
        print(f"{ERASE if self._in_place else ''}{self.notebook:<24}{text}", flush=True)

    def _watch(self) -> None:
        looks, shown, children = 0, 0.0, []
        while not self._over.wait(SAMPLE_S):
            if looks % 5 == 0:  # walking all processes costs more than reading a few
                every = psutil.Process().children(recursive=True)
                children = [child for child in every if child.pid not in self._others]
            looks += 1
            self.peak = max(self.peak, _memory(children))
            states = [cell.metadata.get("papermill", {}).get("status") for cell in self.cells]
            self.current = states.index("running") if "running" in states else self.current
            elapsed = time.monotonic() - self._began
            if elapsed - shown >= (1.0 if self._in_place else LINE_S):
                self._show(elapsed)
                shown = elapsed

    def _show(self, elapsed: float) -> None:
        text = f"cell {self.current + 1} of {len(self.cells)}, {elapsed:.0f} s{self._last_words()}"
        if self._in_place:
            print(f"{ERASE}{self.notebook:<24}{text}", end="", flush=True)
        else:
            print(f"  {text}", flush=True)

    def _last_words(self) -> str:
        """Return the last line the cell printed, e.g. its epoch and loss."""
        outputs = list(self.cells[self.current].get("outputs", [])) if self.cells else []
        lines = [line for output in outputs for line in output.get("text", "").splitlines()]
        words = lines[-1].strip()[:48] if lines else ""
        return f": {words}" if words else ""


def execute(source: Path, output: Path, parameters: dict[str, object], watcher: Watcher) -> None:
    """Execute a notebook in its own folder; the copy is written cell by cell.

    Parameters
    ----------
    source, output : Path
        The notebook, and its executed copy, which holds the traceback if it fails.
    parameters : dict
        Each must be declared in the notebook's parameters cell.
    watcher : Watcher
        Entered for as long as the notebook runs.

    Raises
    ------
    NotebookFailed
        If a cell raises or the kernel dies: cell, the first lines of its source, the error. Or if
        there is no kernel.
    """
    try:
        with _environment(), watcher:
            papermill.execute_notebook(
                source.resolve(),
                output.resolve(),
                parameters=parameters,
                engine_name="mpm",
                kernel_name=KERNEL,
                progress_bar=False,
                cwd=source.parent.resolve(),
                watcher=watcher,
                extra_arguments=[
                    "--log-level=CRITICAL"
                ],  # the kernel's own notices, not its output
            )
    except NoSuchKernel as error:
        raise NotebookFailed(
            f"{source.stem} was not run: this Python has no Jupyter kernel {KERNEL!r}; "
            "`python -m pip install ipykernel` brings it"
        ) from error
    except PapermillExecutionError as error:
        place = f"cell {error.cell_index + 1}, In [{error.exec_count}]"
        reason = f"{error.ename}: {error.evalue}"
        raise NotebookFailed(_explain(source, place, error.source, reason)) from error
    except DeadKernelError as error:
        place, text = f"cell {watcher.current + 1}", watcher.cells[watcher.current].source
        reason = f"its kernel died at {watcher.peak / 1e9:.1f} GB; was there enough memory?"
        raise NotebookFailed(_explain(source, place, text, reason)) from error


def _explain(source: Path, place: str, text: str, reason: str) -> str:
    lines = [f"    {line}" for line in text.splitlines() if line.strip()]
    return "\n".join([f"{source.stem} stopped in {place}:", *lines[:3], f"  {reason}"])


class _Engine(NBClientEngine):
    """Papermill's own engine, which also lets the watcher see the cells."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, *, watcher: Watcher, **options: Any
    ) -> Any:
        watcher.cells = nb_man.nb.cells
        return super().execute_managed_notebook(nb_man, kernel_name, **options)


papermill_engines.register("mpm", _Engine)


def _memory(processes: list[psutil.Process]) -> int:
    """Return what processes hold together, or the most that one of them ever held (bytes)."""
    together = most = 0
    for process in processes:
        try:
            together += process.memory_info().rss
            most = max(most, _high_water(process.pid))
        except (psutil.Error, OSError):  # it ended meanwhile
            continue
    return max(together, most)


def _high_water(pid: int) -> int:
    """Return Linux's own record of a process's peak memory, which no sampling misses (bytes)."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return 0
    peak = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(peak[0].split()[1]) * 1024 if peak else 0


@contextmanager
def _environment() -> Iterator[None]:
    """Have kernels print quietly, and find the same folders although they start in another one."""
    changes = {"MPM_RUN": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    for name in FOLDERS:
        if os.environ.get(name):
            changes[name] = str(Path(os.environ[name]).resolve())
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
