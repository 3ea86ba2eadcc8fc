"""What all mask sinks share: what is asked of them, and how a file gets its final name only once it is whole."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medseg.errors import GridError, MedsegError, OutputError
from medseg.files import partial_of
from medseg.geometry import Box
from medseg.scans.header import reason
from medseg.scans.protocol import Scan

if TYPE_CHECKING:
    from medseg.scans.segments import Segmentation


@dataclass(frozen=True, eq=False)
class Request:
    """A mask that is asked for.

    Attributes:
        path: its final name.
        like: the scan whose grid it has.
        dtype: what its voxels are stored as.
        channels: None for one label a voxel, else the number of channels, in front.
        chunks: the boxes that the caller will write, where the format can store them so.
        resume: whether to go on with what an interrupted sink of the same layout left.
        join: whether to write boxes of a mask that another process of the job has created and will complete.
        unit_interval: whether the values are shares from 0 to 1; uint8 then stores 255 of them.
        segmentation: what the values mean, for a format that says so.
    """

    path: Path
    like: Scan
    dtype: np.dtype
    channels: int | None = None
    chunks: tuple[int, ...] | None = None
    resume: bool = False
    join: bool = False
    unit_interval: bool = False
    segmentation: Segmentation | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The spatial shape."""
        return tuple(self.like.shape)

    @property
    def array_shape(self) -> tuple[int, ...]:
        """(*spatial), or (K, *spatial) with channels."""
        return self.shape if self.channels is None else (self.channels, *self.shape)

    @property
    def partial(self) -> Path:
        """Where the mask is while it is being written."""
        return partial_of(self.path)

    @property
    def nbytes(self) -> int:
        """The bytes of all its voxels, uncompressed."""
        return math.prod(self.array_shape) * self.dtype.itemsize

    @property
    def counts_255(self) -> bool:
        """Whether what is stored is 255 times the share."""
        return self.unit_interval and self.dtype == np.uint8

    @property
    def without_half(self) -> Request:
        """The request, as float32 where it is float16: for formats that have no such type."""
        return replace(self, dtype=np.dtype(np.float32)) if self.dtype == np.float16 else self


def fitted(request: Request, box: Box, labels: NDArray) -> NDArray:
    """The labels in the mask's dtype; shares from 0 to 1 as 0 to 255 where they are asked for in a byte.

    Raises:
        GridError: where the box overhangs the mask, or the labels have another shape than the box.
        OutputError: where a label does not fit the mask's dtype.
    """
    labels = np.asarray(labels)
    channels = request.array_shape[: -len(request.shape)]
    if box.ndim != len(request.shape) or not box.within(request.shape):
        raise GridError(f"{request.path}: the box {box} overhangs the mask {request.shape}")
    if labels.shape != (*channels, *box.shape):
        raise GridError(f"{request.path}: {labels.shape} labels do not fill the box {box}")
    if request.counts_255:
        labels = np.rint(np.multiply(labels, 255, dtype=np.float32))
    if labels.dtype == request.dtype:
        return labels
    with np.errstate(invalid="ignore", over="ignore"):
        stored = labels.astype(request.dtype)
    if request.dtype.kind in "iu" and not np.array_equal(stored, labels):
        raise OutputError(
            f"{request.path}: labels from {labels.min()} to {labels.max()} do not fit {request.dtype}; "
            "ask for a larger dtype"
        )
    return stored


@contextmanager
def as_output_error(path: Path) -> Iterator[None]:
    """Turns a refusal of the operating system into one :class:`OutputError`."""
    try:
        yield
    except MedsegError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "; make room and start again: what is written is kept"
        else:
            hint = ""
        raise OutputError(f"{path}: cannot be written ({reason(error)}){hint}") from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a file, which stays as it is, against every other thread and process that does the same."""
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def not_there(request: Request) -> OutputError:
    """What is said of a mask that cannot be joined."""
    return OutputError(
        f"{request.path}: there is no unfinished mask of this grid, dtype and layout to join; "
        "the process that creates it must start first, with the same options"
    )


def publish(finished: Path, final: Path) -> None:
    """Gives a finished file or folder its final name, over whatever has that name."""
    if final.is_dir() and not final.is_symlink():
        old = final.with_name(f".{final.name}.replaced")
        remove(old)
        os.replace(final, old)
        os.replace(finished, final)
        remove(old)
    else:
        os.replace(finished, final)
    sync(final.parent)


def remove(path: Path) -> None:
    """Removes a file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Has a file's bytes, or a folder's names, on the disk when it returns."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def free_bytes(path: Path) -> int:
    """What a user may still write on the disk where a file or folder will lie.

    Raises:
        OutputError: where none of its parents exists.
    """
    with as_output_error(path):
        disk = os.statvfs(next(p for p in [path, *path.absolute().parents] if p.exists()))
    return disk.f_bavail * disk.f_frsize
