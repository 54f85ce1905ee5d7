"""Parts of a computation side by side on threads, each on one: their number changes no result."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import torch

Part = TypeVar("Part")
Made = TypeVar("Made")


def side_by_side(work: Callable[[Part], Made], parts: Iterable[Part]) -> Iterator[Made]:
    """Yield `work(part)` of all parts, in their order, several at a time on torch's threads.

    Small networks on batches that fit into a cache gain more from two batches at a time than from
    two threads on one: torch lets go of Python's lock while it computes. And sums do not depend on
    the number of threads.

    Parameters
    ----------
    work : function
        Of CPU tensors; what it does on a GPU would only wait.
    parts : iterable
        Taken as they are needed, a few ahead.
    """
    count = torch.get_num_threads()
    if count == 1:
        yield from map(work, parts)
        return
    own = partial(_with_gradients, torch.is_grad_enabled(), work)
    waiting: deque = deque()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(count) as pool:
            for part in parts:
                waiting.append(pool.submit(own, part))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(count)


def _with_gradients(enabled: bool, work: Callable, part: Any) -> Any:
    """Work as the caller does: each thread has a setting of its own."""
    with torch.set_grad_enabled(enabled):
        return work(part)
