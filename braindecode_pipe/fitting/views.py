"""Windows as something array-like that reads when indexed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from braindecode_pipe.fitting.windows import Windows

# Windows that take more memory stay views into their stores.
IN_MEMORY_BYTES = 1 << 30


class WindowView:
    """``(n, n_sensors, n_times)`` windows that are read when indexed with positions or a slice."""

    def __init__(self, windows: Windows, rows: np.ndarray) -> None:
        self.windows, self.rows = windows, rows
        self.shape = (len(rows), *windows.shape)
        self.ndim, self.dtype = 3, np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.windows.read(np.atleast_1d(self.rows[index]))

    def read(
        self,
        positions: np.ndarray,
        out: np.ndarray | None = None,
        shift_s: np.ndarray | None = None,
    ) -> np.ndarray:
        """Windows at some positions, into ``out``, moved by ``shift_s`` (n,) [s] where they can."""
        rows = self.rows[positions]
        shift = None if shift_s is None else self.windows.shifts(rows, shift_s)
        return self.windows.read(rows, out, shift)

    def chunks(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :meth:`Windows.chunks`."""
        return self.windows.chunks(self.rows[positions])

    def subset(self, positions: np.ndarray) -> WindowView:
        """The view of some of these windows; reads nothing."""
        return WindowView(self.windows, self.rows[positions])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.windows.read(self.rows).astype(dtype or np.float32, copy=False)


def kept(X: Any, memory: int | None = None) -> Any:
    """Windows as an array where that takes no more than ``memory`` bytes, else as they are.

    The default is 1 GiB.
    """
    limit = IN_MEMORY_BYTES if memory is None else memory
    return X[:] if not isinstance(X, np.ndarray) and 4 * math.prod(X.shape) <= limit else X
