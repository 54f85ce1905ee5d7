"""Train, validation and test cells, and what would let one know another."""

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

import numpy as np
from scipy.ndimage import maximum_filter

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """One division of the cells of all regions.

    Attributes
    ----------
    train, validation, test : tuple of array (y, x)
        bool, one a region. Cells in none of them are in the dead zone or not valid.
    """

    train: tuple[np.ndarray, ...]
    validation: tuple[np.ndarray, ...]
    test: tuple[np.ndarray, ...]


class Fitted(Protocol):
    """What remembers the cells that it was fitted on, as a `scaling.Scaling` does.

    Attributes
    ----------
    seen : tuple of str
        These cells, a region each, as `pack` writes them; empty if that was not kept.
    """

    @property
    def seen(self) -> tuple[str, ...]:
        """The cells."""


def check(
    split: Split,
    gap: int = 0,
    *,
    window: int = 1,
    deposits: Mapping[str, Sequence[np.ndarray]] | None = None,
    scaling: Fitted | None = None,
) -> None:
    """Raise if training cells could tell about held-out ones, or validation about test cells.

    Parameters
    ----------
    split : Split
    gap : int
        Dead zone (cells) that must lie between two parts.
    window : int
        Cells along one side: no window about a cell of one part may hold a cell of another. 1 where
        windows are meant to overlap, as under the random split.
    deposits : mapping of sequence of array (y, x), optional
        By target, a region each: the number of the deposit, -1 elsewhere. None may lie in two
        parts. Left out under the random split, which parts them.
    scaling : Fitted, optional
        A scaling, or a backbone's, which was pretrained on the same cells: it may have seen neither
        validation nor test cells. One that does not remember its cells cannot be checked.

    Raises
    ------
    ValueError
        Naming the parts, and region, row and column of the first cell at fault.
    """
    _check_apart(split, gap, window)
    for target, planes in (deposits or {}).items():
        _check_whole(split, target, planes)
    if scaling is not None and scaling.seen:
        _check_fitted(split, scaling)


def _check_apart(split: Split, gap: int, window: int) -> None:
    reach = max(gap, window // 2)
    why = f" (a window of {window} cells reaches that far)" if window // 2 > gap else ""
    for one, other in combinations(PARTS, 2):
        for k, (a, b) in enumerate(zip(getattr(split, one), getattr(split, other), strict=True)):
            wrong = a & near(b, reach)
            if wrong.any():
                raise ValueError(
                    f"leak: {one} and {other} cells of region {k} lie within {reach} cells of each "
                    f"other{why}, first at {_first(wrong)}"
                )


def _check_whole(split: Split, target: str, planes: Sequence[np.ndarray]) -> None:
    for one, other in combinations(PARTS, 2):
        parts = zip(planes, getattr(split, one), getattr(split, other), strict=True)
        for k, (number, a, b) in enumerate(parts):
            parted = np.intersect1d(number[a & (number >= 0)], number[b & (number >= 0)])
            if parted.size:
                where = _first((number == parted[0]) & a)
                raise ValueError(
                    f"leak: deposit {parted[0]} of {target} in region {k} is parted into {one} and "
                    f"{other} cells, first {one} cell at {where}"
                )


def _check_fitted(split: Split, scaling: Fitted) -> None:
    seen = [unpack(text) for text in scaling.seen]
    found, expected = ([cells.shape for cells in each] for each in (seen, split.test))
    if found != expected:
        raise ValueError(
            f"the scaling was fitted on grids of {found} cells, the split is of {expected}; fit it "
            "on the split's own training cells"
        )
    for part in ("test", "validation"):
        for k, (fitted, held) in enumerate(zip(seen, getattr(split, part), strict=True)):
            wrong = fitted & held
            if wrong.any():
                raise ValueError(
                    f"leak: the scaling was fitted on {wrong.sum()} {part} cells of region {k}, "
                    f"first at {_first(wrong)}; fit it, and pretrain the backbone that brought it, "
                    "on this split's training cells"
                )


def _first(cells: np.ndarray) -> str:
    row, col = np.argwhere(cells)[0]
    return f"row {row}, column {col}"


def near(cells: np.ndarray, gap: int) -> np.ndarray:
    """Cells (y, x) within `gap` cells of any of `cells` (y, x), in the square sense of a window."""
    if gap == 0 or not cells.any():
        return cells
    return maximum_filter(cells, size=2 * gap + 1)


def pack(cells: np.ndarray) -> str:
    """Write cells (y, x, bool) as text: "rows x columns" and their compressed bits."""
    bits = zlib.compress(np.packbits(np.asarray(cells, bool)).tobytes(), 9)
    return f"{cells.shape[0]}x{cells.shape[1]}:{base64.b64encode(bits).decode()}"


def unpack(text: str) -> np.ndarray:
    """Read cells (y, x, bool) that `pack` wrote."""
    size, bits = text.split(":")
    rows, cols = map(int, size.split("x"))
    packed = np.frombuffer(zlib.decompress(base64.b64decode(bits)), "uint8")
    return np.unpackbits(packed, count=rows * cols).astype(bool).reshape(rows, cols)
