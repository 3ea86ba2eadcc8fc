"""Decoded pieces of files that cannot be read finer than that: a chunk of a Zarr, a strip of a TIFF, a whole PNG."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future

from numpy.typing import NDArray

BUDGET_BYTES = 64 << 20
"""What all scans of a process keep together; one piece is kept however large it is."""

LEAST_BYTES = 1 << 10
"""What any piece counts for, however small its values: Python's own objects around it."""


class PieceCache:
    """The pieces that were used last, up to a number of bytes; several threads may use it at once.

    Attributes:
        made: how many pieces have been made so far.
    """

    def __init__(self, budget: int = BUDGET_BYTES) -> None:
        self.made = 0
        self._budget = budget
        self.empty()

    def empty(self) -> None:
        """Begins anew. So must a forked process, which lacks the threads that held the lock or were making a piece."""
        self._pieces: OrderedDict[Hashable, NDArray] = OrderedDict()
        self._making: dict[Hashable, Future[NDArray]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def budget(self) -> int:
        """The bytes that may be kept; a smaller one drops pieces at once."""
        return self._budget

    @budget.setter
    def budget(self, budget: int) -> None:
        with self._lock:
            self._budget = budget
            self._drop()

    @property
    def nbytes(self) -> int:
        """The bytes that are kept now."""
        return self._bytes

    def get(self, key: Hashable, make: Callable[[], NDArray]) -> NDArray:
        """The piece of this key, made if it is not kept; threads that want the same one wait for the first."""
        with self._lock:
            if key in self._pieces:
                self._pieces.move_to_end(key)
                return self._pieces[key]
            pending = self._making.get(key)
            if pending is None:
                mine = self._making[key] = Future()
        if pending is not None:
            return pending.result()
        return self._made(key, make, mine)

    def _made(self, key: Hashable, make: Callable[[], NDArray], mine: Future[NDArray]) -> NDArray:
        try:
            piece = make()
        except BaseException as error:
            with self._lock:
                del self._making[key]
            mine.set_exception(error)
            raise
        with self._lock:
            self.made += 1
            self._pieces[key] = piece
            self._bytes += held(piece)
            self._drop()
            del self._making[key]
        mine.set_result(piece)
        return piece

    def _drop(self) -> None:
        while self._bytes > self._budget and len(self._pieces) > 1:
            self._bytes -= held(self._pieces.popitem(last=False)[1])


def held(piece: NDArray) -> int:
    """The bytes that a piece keeps in memory: an axis along which it is one value repeated counts once."""
    values = 1
    for length, stride in zip(piece.shape, piece.strides, strict=True):
        values *= length if stride else 1
    return max(LEAST_BYTES, values * piece.itemsize)


PIECES = PieceCache()
os.register_at_fork(after_in_child=PIECES.empty)
