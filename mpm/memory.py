"""What to say when memory is not enough."""

from collections.abc import Iterator
from contextlib import contextmanager

from mpm.windows import Windows

# of CPUs on Windows and Linux, of CUDA, and of the libraries that CUDA calls
SIGNS = ("not enough memory", "can't allocate memory", "out of memory", "alloc_failed")


@contextmanager
def enough_memory(what: str, windows: Windows, batch: int) -> Iterator[None]:
    """Turn whatever torch and numpy raise for want of memory into one error with a remedy.

    Parameters
    ----------
    what : str
        What is done meanwhile, e.g. "fine-tuning".
    windows : Windows
    batch : int
        Windows at a time.

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
            f"{windows.size} cells and {windows.layers} layers: use a smaller batch, a smaller "
            "window or preset, fewer layers, or another device"
        ) from error


def is_short(error: Exception) -> bool:
    """Say whether an error of torch or numpy means that memory ran out."""
    # torch.OutOfMemoryError is a RuntimeError
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in SIGNS)
