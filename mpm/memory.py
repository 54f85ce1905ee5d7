"""Memory: keep it, hand it back, and say what to do when it is not enough."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mpm.windows import Windows

# of CPUs on Windows and Linux, of CUDA, and of the libraries that CUDA calls
SIGNS = ("not enough memory", "can't allocate memory", "out of memory", "alloc_failed")
REMEDY = "use a smaller batch, a smaller window or preset, fewer layers, or another device"


@contextmanager
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


def keep_freed_memory() -> None:
    """Tell glibc not to hand freed tensors back to the system at every step.

    Fetching the same pages anew costs about half of a small model's training time on a CPU.
    """
    libc = _glibc()
    if libc:
        libc.mallopt(-3, 1 << 28)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 1 << 27)  # M_TRIM_THRESHOLD: what is kept, 128 MB


def give_memory_back() -> None:
    """Hand freed memory back to the system: what the last training left lies scattered in it."""
    libc = _glibc()
    if libc:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    # not by `find_library`: it starts a compiler, and the fork looks as large as this process
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
