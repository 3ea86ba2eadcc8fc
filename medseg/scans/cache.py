"""Decoded pieces of files that cannot be read finer than that: a strip of a TIFF, a whole PNG."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from numpy.typing import NDArray

BUDGET_BYTES = 64 << 20
"""What all scans of a process keep together; one piece is kept however large it is."""


class PieceCache:
    """The pieces that were used last, up to a number of bytes; several threads may use it at once."""

    def __init__(self, budget: int = BUDGET_BYTES) -> None:
        self.budget = budget
        self._pieces: OrderedDict[Hashable, NDArray] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], NDArray]) -> NDArray:
        """The piece of this key, made if it is not kept; two threads may make the same one."""
        with self._lock:
            if key in self._pieces:
                self._pieces.move_to_end(key)
                return self._pieces[key]
        piece = make()
        with self._lock:
            if key not in self._pieces:
                self._pieces[key] = piece
                self._bytes += piece.nbytes
            while self._bytes > self.budget and len(self._pieces) > 1:
                self._bytes -= self._pieces.popitem(last=False)[1].nbytes
        return piece


PIECES = PieceCache()
