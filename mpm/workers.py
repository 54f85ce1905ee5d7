"""Work on folds in parallel processes of one thread each: their number changes no result."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from joblib import Parallel, delayed, parallel_config
from threadpoolctl import threadpool_limits

from mpm import artefacts
from mpm.bars import tqdm
from mpm.memory import give_memory_back, processes_that_fit


def in_processes(
    work: Callable,
    jobs: Sequence[tuple],
    processes: int,
    label: str,
    *,
    ordered: bool = False,
    device: torch.device | str = "cpu",
) -> Iterator[Any]:
    """Yield `work(*job)` of all jobs, done in processes of one thread each, under a progress line.

    Small networks gain little from several threads, and sums differ with their number.

    Parameters
    ----------
    work : function
        Of a module that the processes can import; `functools.partial` of one will do.
    jobs : sequence of tuple
    processes : int
        At a time, as of `memory.processes_that_fit`. One job after another is done here.
    label : str
        Of the line.
    ordered : bool
        Results come in the order of the jobs; else each as soon as it is there.
    device : torch.device or str
        On a GPU one job is done after another.
    """
    # a process that grew is replaced, and its job done by another: nothing that a reader must know
    warnings.filterwarnings("ignore", message="A worker stopped while some jobs were given")
    processes = min(processes_that_fit(processes), len(jobs))
    processes = processes if torch.device(device).type == "cpu" else 1
    if processes > 1:
        with parallel_config("loky", n_jobs=processes, inner_max_num_threads=1):
            # a job at a time: the next one goes to the process that is free first
            come = "generator" if ordered else "generator_unordered"
            pool = Parallel(return_as=come, batch_size=1, pre_dispatch=processes)
            done = pool(delayed(_elsewhere)(work, *job) for job in jobs)
    else:
        done = (_alone(work, *job) for job in jobs)
    yield from tqdm(done, label, len(jobs), leave=False, disable=artefacts.quiet())


def _elsewhere(work: Callable, *job: Any) -> Any:
    """Do a job in a process of its own, whose bars nobody could tell from those of the others."""
    os.environ["MPM_RUN"] = "1"
    return _alone(work, *job)


def _alone(work: Callable, *job: Any) -> Any:
    with _one_thread():
        made = work(*job)
    give_memory_back()  # else a process grows with every fold
    return made


@contextmanager
def _one_thread() -> Iterator[None]:
    threads, named = torch.get_num_threads(), os.environ.get("MPM_THREADS")
    os.environ["MPM_THREADS"] = "1"
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)
        os.environ.pop("MPM_THREADS")
        if named is not None:
            os.environ["MPM_THREADS"] = named
