"""Memory: keep it, hand it back, and say what to do when it is not enough."""

import contextlib
import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow

from mpm.artefacts import threads
from mpm.windows import Windows

# of CPUs on Windows and Linux, of CUDA, and of the libraries that CUDA calls
SIGNS = ("not enough memory", "can't allocate memory", "out of memory", "alloc_failed")
PROCESS = 1_900_000_000  # bytes that one of several processes at work may need, torch and all
REMEDY = "use a smaller batch, a smaller window or preset, fewer layers, or another device"


@contextlib.contextmanager
def enough_memory(
    what: str, windows: Windows, batch: int, *, remedy: str = REMEDY, kept: object = ""
) -> Iterator[None]:
    """Turn whatever torch and numpy raise for want of memory into one error with a remedy.

    Parameters
    ----------
    what : str
        What is done meanwhile, e.g. "fine-tuning".
    windows : Windows
    batch : int
        Windows at a time.
    remedy : str
        What to do about it.
    kept : object
        Its text, read when memory runs out, ends the message: what is not lost.

    Raises
    ------
    MemoryError
        With the batch, the window and the number of layers. Other errors pass as they are.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_short(error):
            raise
        raise MemoryError(
            f"not enough memory for {what} with batch {batch} of windows of {windows.size} x "
            f"{windows.size} cells and {windows.layers} layers: {remedy}{kept}"
        ) from error


def is_short(error: Exception) -> bool:
    """Say whether an error of torch or numpy means that memory ran out."""
    # torch.OutOfMemoryError is a RuntimeError
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in SIGNS)


def processes_that_fit(wanted: int) -> int:
    """Return how many processes may work side by side: as many as wanted, fewer where memory ends.

    Containers, such as those of Binder (2 GB), end a session that takes more than its share; how
    many processes work changes no result.

    Parameters
    ----------
    wanted : int
        0: one for each thread that may train a model (`artefacts.threads`).
    """
    return max(1, min(wanted or threads(), limit() // PROCESS))


def limit(system: Path = Path("/")) -> int:
    """Return the memory that this process may use (bytes): the machine's, or its container's.

    Parameters
    ----------
    system : Path
        Root of the file system, in which Linux tells limits of control groups, of version 1 and 2.
    """
    limits = [psutil.virtual_memory().total]
    with contextlib.suppress(OSError):  # not Linux, or no control groups
        for line in (system / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers in ("", "memory"):
                limits += _limits_of_group(system / "sys/fs/cgroup", controllers, group)
    return min(limits)


def _limits_of_group(root: Path, controllers: str, group: str) -> list[int]:
    """List the limits of a control group and of those it lies in, as far as they are in sight."""
    name = "memory.limit_in_bytes" if controllers else "memory.max"
    own = Path(group.lstrip("/"))
    found = [root / controllers / place / name for place in (own, *own.parents)]
    texts = [path.read_text(encoding="utf-8").strip() for path in found if path.is_file()]
    return [int(text) for text in texts if text.isdigit()]  # the other text is "max"


def keep_freed_memory() -> None:
    """Tell glibc not to hand freed tensors back to the system at every step.

    Fetching the same pages anew costs about half of a small model's training time on a CPU.
    """
    libc = _glibc()
    if libc:
        libc.mallopt(-3, 1 << 28)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 1 << 27)  # M_TRIM_THRESHOLD: what is kept, 128 MB


def give_memory_back() -> None:
    """Hand freed memory back to the system: what a training or a large table left in it."""
    pyarrow.default_memory_pool().release_unused()
    libc = _glibc()
    if libc:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    # not by `find_library`: it starts a compiler, and the fork looks as large as this process
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
