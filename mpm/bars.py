"""Progress bars that leave nothing behind, in a terminal and under a notebook's cell.

In notebooks the bars of `tqdm.auto` are widgets, which a notebook that is saved and opened again
cannot show any more: it says "Loading widget...". These are text.
"""

import sys
from typing import Any

import tqdm as plain


def tqdm(*what: Any, **options: Any) -> plain.tqdm:
    """Make a bar, as `tqdm.tqdm` does with the same arguments; in notebooks it is no widget."""
    if in_notebook() and not options.get("disable"):
        options |= {"file": _Cell(), "ncols": 90, "position": 0}
    return plain.tqdm(*what, **options)


def in_notebook() -> bool:
    """Say whether a cell of a notebook runs this."""
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


class _Cell:
    """A text file whose last line is shown under the running cell, not red as stderr would be."""

    encoding = "utf-8"  # tqdm asks before it draws blocks

    def __init__(self) -> None:
        self._shown: Any = None  # IPython's handle of the line

    def write(self, text: str) -> None:
        """Show a line in place of the one before; tqdm clears its own by blanks."""
        if text == "\n":  # the end of a bar that stays
            return
        line = {"text/plain": text.strip()}
        if self._shown:
            self._shown.update(line, raw=True)
        elif line["text/plain"]:
            from IPython.display import display

            self._shown = display(line, raw=True, display_id=True)

    def flush(self) -> None:
        """Do nothing: lines are shown at once."""
