"""Windows: squares of cells around a centre, gathered from one padded canvas at memory speed."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from mpm import artefacts
from mpm.bars import tqdm
from mpm.threads import side_by_side


@dataclass(frozen=True)
class Windows:
    """All windows of one or more regions, without a copy of any of them.

    The regions' evidence lies on one canvas, each padded by half a window of missing cells, so that
    windows reach the edges of the map and never from one region into another.

    Attributes
    ----------
    canvas : Tensor (layers, rows, cols)
        Standardised evidence of all regions, float32, 0 (the training mean) where missing.
    seen : Tensor (layers, rows, cols)
        bool, where the canvas holds observed evidence.
    size : int
        Cells along one side, odd.
    region, row, col : array (n,)
        Place of every valid centre: number of the region, and cell on that region's grid.
    shapes : tuple
        Grid shape of each region.
    """

    canvas: Tensor
    seen: Tensor
    size: int
    region: np.ndarray
    row: np.ndarray
    col: np.ndarray
    shapes: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.row)

    @property
    def layers(self) -> int:
        """Number of evidence layers."""
        return self.canvas.shape[0]

    def gather(self, index: np.ndarray | Tensor) -> tuple[Tensor, Tensor]:
        """Return the windows of some centres.

        Parameters
        ----------
        index : array (n,) of int
            Numbers of centres.

        Returns
        -------
        values : Tensor (n, layers, size, size)
            float32, 0 (the training mean) where missing.
        observed : Tensor (n, layers, size, size)
            bool.
        """
        rows, cols = (corner.to(self.canvas.device) for corner in self.corners(index))
        return _pick(self._views(self.canvas), rows, cols), _pick(
            self._views(self.seen), rows, cols
        )

    def batches(
        self, index: np.ndarray | Tensor, size: int, *, label: str | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Gather windows (n, layers, size, size) by batches, under a bar if `label` names it."""
        return self._by_batch(map, lambda *part: part, index, size, label)

    def map(
        self,
        work: Callable[[Tensor, Tensor], Any],
        index: np.ndarray | Tensor,
        size: int,
        *,
        label: str | None = None,
    ) -> Iterator[Any]:
        """Yield `work(values, observed)` of batches in their order; on a CPU some side by side.

        Parameters
        ----------
        work : function
            Of windows and where they are observed, as of `gather`.
        index, size, label
            As for `batches`.
        """
        way = side_by_side if self.canvas.device.type == "cpu" else map
        return self._by_batch(way, work, index, size, label)

    def _by_batch(
        self,
        way: Callable,
        work: Callable,
        index: np.ndarray | Tensor,
        size: int,
        label: str | None,
    ) -> Iterator[Any]:
        hidden = label is None or artefacts.quiet()
        starts = range(0, len(index), size)
        made = way(lambda start: work(*self.gather(index[start : start + size])), starts)
        yield from tqdm(made, label, len(starts), disable=hidden, leave=False)

    def centres(self, index: np.ndarray | None = None) -> np.ndarray:
        """Return the centre cells' evidence (n, layers), NaN where missing."""
        half = self.size // 2
        rows, cols = (corner + half for corner in self.corners(index))
        values = self.canvas[:, rows, cols].where(self.seen[:, rows, cols], torch.nan)
        return values.T.cpu().numpy()

    def take(self, planes: Sequence[np.ndarray]) -> np.ndarray:
        """Read planes, one (y, x) a region, at every centre: (n,)."""
        values = np.empty(len(self), np.result_type(*planes))
        for number, plane in enumerate(planes):
            here = self.region == number
            values[here] = plane[self.row[here], self.col[here]]
        return values

    def put(self, values: np.ndarray, region: int, fill: float = np.nan) -> np.ndarray:
        """Lay values of all centres, (n,) or (n, layers), on a region's grid, layers first."""
        here = self.region == region
        plane = np.full((*self.shapes[region], *values.shape[1:]), fill, values.dtype)
        plane[self.row[here], self.col[here]] = values[here]
        return np.moveaxis(plane, -1, 0) if values.ndim > 1 else plane

    def to(self, device: torch.device | str) -> "Windows":
        """Put the canvas on a device; the windows are gathered there."""
        return replace(self, canvas=self.canvas.to(device), seen=self.seen.to(device))

    def corners(self, index: np.ndarray | Tensor | None) -> tuple[Tensor, Tensor]:
        """Return first row and column (n,) of windows on the canvas, padded by half a window."""
        some = slice(None) if index is None else np.asarray(index)
        tops = np.cumsum([0] + [height + self.size - 1 for height, _ in self.shapes])[:-1]
        rows = tops[self.region[some]] + self.row[some]
        return torch.as_tensor(rows), torch.as_tensor(self.col[some])

    def _views(self, canvas: Tensor) -> Tensor:
        """All windows as a view, (rows, cols, layers, size, size): no copy until it is indexed."""
        return canvas.unfold(1, self.size, 1).unfold(2, self.size, 1).permute(1, 2, 0, 3, 4)


def _pick(views: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """Copy views[rows, cols] into fresh memory."""
    if views.device.type != "cpu":
        return views[rows, cols]
    # numpy asks the system for huge pages, torch does not: five times faster on first touch
    dtype = np.float32 if views.dtype == torch.float32 else bool
    fresh = torch.from_numpy(np.empty((len(rows), *views.shape[2:]), dtype))
    return torch.ops.aten.index.Tensor_out(views, [rows, cols], out=fresh)


def make_windows(cubes: Sequence[xr.Dataset], size: int, *, min_valid: float = 0.25) -> Windows:
    """List the windows of scaled cubes.

    Parameters
    ----------
    cubes : sequence of Dataset
        One a region, standardised, with the same layers.
    size : int
        Cells along one side, odd.
    min_valid : float
        Share of a window's cells that must be valid; its centre must be valid in any case. Windows
        are not thrown away for a single gap.

    Returns
    -------
    Windows

    Raises
    ------
    ValueError
        If the size is even, layers differ, or no window has enough valid cells.
    """
    if size % 2 == 0:
        raise ValueError(f"window {size} must be odd, so that it has a centre cell")
    names = list(cubes[0]["layer"].values)
    for cube in cubes[1:]:
        if list(cube["layer"].values) != names:
            raise ValueError(f"layers of {cube.attrs.get('region')} differ from the first region's")
    places = [window_centres(cube["valid"].values, size, min_valid=min_valid) for cube in cubes]
    region = np.concatenate([np.full(len(rows), k) for k, (rows, _) in enumerate(places)])
    if len(region) == 0:
        raise ValueError(
            f"no {size} x {size} window has {min_valid:.0%} valid cells; lower the share"
        )
    canvas = _canvas([cube["evidence"].values for cube in cubes], size)
    seen = ~canvas.isnan()
    return Windows(
        canvas=canvas.nan_to_num_(0.0),
        seen=seen,
        size=size,
        region=region,
        row=np.concatenate([rows for rows, _ in places]),
        col=np.concatenate([cols for _, cols in places]),
        shapes=tuple((cube.sizes["y"], cube.sizes["x"]) for cube in cubes),
    )


def window_centres(
    valid: np.ndarray, size: int, *, min_valid: float = 0.25
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of valid cells (y, x) whose window is valid in at least a share of cells."""
    half = size // 2
    # summed-area table: the count in any square is four look-ups
    table = np.zeros((valid.shape[0] + size, valid.shape[1] + size), "int32")
    padded = np.pad(valid, half).astype("int32")
    table[1:, 1:] = padded.cumsum(axis=0).cumsum(axis=1)
    count = (
        table[size:, size:] - table[:-size, size:] - table[size:, :-size] + table[:-size, :-size]
    )
    rows, cols = np.nonzero(valid & (count >= min_valid * size * size))
    return rows, cols


def _canvas(planes: list[np.ndarray], size: int) -> Tensor:
    """Stack regions (layers, y, x) below each other, each padded by half a window of NaN."""
    half = size // 2
    width = max(plane.shape[2] for plane in planes) + 2 * half
    height = sum(plane.shape[1] + 2 * half for plane in planes)
    canvas = np.full((planes[0].shape[0], height, width), np.nan, "float32")
    top = half
    for plane in planes:
        canvas[:, top : top + plane.shape[1], half : half + plane.shape[2]] = plane
        top += plane.shape[1] + 2 * half
    return torch.from_numpy(canvas)
