"""Run every study at hand, several side by side if wished."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mpm import fetch
from mpm.study import load, studies
from mpm.study_errors import first_lines


def run_all(words: list[str], *, jobs: int = 1) -> dict[str, str]:
    """Run the notebooks of every study whose files are there or can be had.

    Parameters
    ----------
    words : list of str
        Further words for `mpm run`, the same for all.
    jobs : int
        Studies side by side, each a process of its own; notebooks of one study stay in order.

    Returns
    -------
    dict of str
        By study: "done", "failed", "failed: " and what is wrong with its study file or with the
        files that came, or "skipped: " and what is not at hand.

    Raises
    ------
    ValueError
        If `jobs` is not positive.
    """
    if jobs < 1:
        raise ValueError(f"--jobs {jobs}: give how many studies to run side by side, 1 or more")
    outcome, ready = {}, []
    for name in studies():
        outcome[name] = _obstacle(name) or "waiting"
        ready += [name] if outcome[name] == "waiting" else []
        print(f"{name:<24}{outcome[name]}", flush=True)
    lock = threading.Lock()
    with ThreadPoolExecutor(jobs) as pool:
        codes = pool.map(lambda name: _run(name, words, lock), ready)
        outcome |= {
            name: "failed" if code else "done" for name, code in zip(ready, codes, strict=True)
        }
    return outcome


def _obstacle(name: str) -> str:
    """Fetch a study's files; return how it ends if that cannot be done, or nothing.

    What is not at hand, or cannot be reached, is skipped; what is wrong is a failure.
    """
    try:
        fetch.fetch(load(name))
    except (FileNotFoundError, ConnectionError) as error:
        return f"skipped: {first_lines(error)}"
    except (ValueError, OSError) as error:
        return f"failed: {first_lines(error)}"
    return ""


def _run(name: str, words: list[str], lock: threading.Lock) -> int:
    """Run one study in a process of its own, its lines marked by its name."""
    command = [sys.executable, "-m", "mpm", "run", name, *words]
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, text=True, **streams) as process:
        for line in process.stdout or ():
            with lock:
                print(f"{name}: {line.rstrip()}", flush=True)
    return process.returncode
