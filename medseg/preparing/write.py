"""A case is prepared: by one process at a time, whole or not at all.

The lock is the operating system's, so that a process that was killed leaves none behind. What it has left half written
is removed by the next one that prepares the case.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from numpy.typing import NDArray

from medseg.datasets.labels import one_channel
from medseg.errors import MedsegError
from medseg.files import partial_of
from medseg.geometry import Box
from medseg.preparing.arrays import blocks_of, write_array
from medseg.preparing.record import IMAGE, LABEL, Grid, census_of, place_of, prepared_folder, whole, write_record
from medseg.preparing.request import Request
from medseg.scans.header import Header, HeaderScan
from medseg.scans.protocol import Scan
from medseg.scans.sink import as_output_error, publish, remove
from medseg.training.census import CaseCensus

LOCKS = "locks"
Outcome = Literal["there", "made", "mended", "busy"]
"""Whole already; prepared now; damaged, and prepared anew; another process is at it."""


def prepare_case(request: Request, wait: bool = True, verify: bool = False) -> Outcome:
    """Sees that a case is prepared.

    Args:
        request: the case.
        wait: whether to wait for another process that prepares it.
        verify: whether to compare all that is there with its checksums.

    Raises:
        MedsegError: where a file of the case is damaged, or the cache folder cannot be written.
    """
    with as_output_error(prepared_folder()), turn(request.key, wait) as mine:
        if not mine:
            return "busy"
        try:
            verified(request.key) if verify else whole(request.key)
        except FileNotFoundError:
            _make(request)
            return "made"
        except MedsegError:
            _make(request)
            return "mended"
    return "there"


@contextmanager
def turn(key: str, wait: bool) -> Iterator[bool]:
    """Whether this process may write, or remove, the case of a key; it alone may until the end of the block."""
    locks = prepared_folder() / LOCKS
    locks.mkdir(exist_ok=True)
    fd = os.open(locks / key, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        mine = _locked(fd, wait)
        yield mine
    finally:
        os.close(fd)


def verified(key: str) -> None:
    """Reads all of a prepared case.

    Raises:
        MedsegError: where it is damaged.
        FileNotFoundError: where there is none.
    """
    record = whole(key)
    census_of(record)
    for name, grid in ((IMAGE, record.image), (LABEL, record.label)):
        scan = grid.open(place_of(key) / name, name)
        for box in blocks_of(scan, scan.chunk):
            scan.read(box)


def _locked(fd: int, wait: bool) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def _make(request: Request) -> None:
    final = place_of(request.key)
    partial = partial_of(final)
    remove(partial)
    partial.mkdir()
    try:
        _fill(request, partial)
    except BaseException:
        remove(partial)
        raise
    publish(partial, final)


def _fill(request: Request, folder: Path) -> None:
    image = _write(request.image(), folder / IMAGE)
    label = _write(OneChannel(request.label()), folder / LABEL)
    census = CaseCensus.of(label.open(folder / LABEL, request.case.name), request.labels)
    write_record(folder, request.key, request.dataset, image, label, census)


def _write(scan: Scan, folder: Path) -> Grid:
    return Grid.of(scan, write_array(scan, folder))


class OneChannel(HeaderScan):
    """A label scan whose values are one a voxel, though its file may be in colour."""

    def __init__(self, source: Scan) -> None:
        self.source = source
        about = (source.dtype, source.axes, source.affine, source.unit, source.anatomical)
        super().__init__(Header(source.name, source.shape, 1, *about))

    def _read(self, box: Box) -> NDArray:
        return one_channel(self.source.read(box), self.name)[None]
