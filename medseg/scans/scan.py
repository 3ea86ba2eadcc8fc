"""The door of this floor: a path or an array becomes a scan, a path becomes a mask to write.

The protocols are :mod:`medseg.scans.protocol`'s and the tables of formats :mod:`medseg.scans.formats`'; both are
offered here too.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from medseg.errors import OutputError, ScanError
from medseg.scans.formats import READERS, SUFFIXES, WRITERS, stem_of, suffix_of
from medseg.scans.protocol import MaskSink, Scan, spacing_of

if TYPE_CHECKING:
    from medseg.scans.dicom_facts import SeriesChoice
    from medseg.scans.segments import Segmentation
    from medseg.scans.sink import Request

__all__ = [
    "READERS",
    "SUFFIXES",
    "WRITERS",
    "MaskSink",
    "Scan",
    "create_mask",
    "mask_bytes",
    "open_scan",
    "spacing_of",
    "stem_of",
    "suffix_of",
]


def open_scan(source: str | Path | NDArray, *, labels: bool = False, series: SeriesChoice | None = None) -> Scan:
    """Opens a file, a folder of DICOM files or an OME-Zarr one, or an array (C, *spatial) of two or three spatial axes.

    Only headers are read.

    Args:
        source: what to open. The suffix tells the format.
        labels: whether the values are labels. It matters for pictures with a colour table alone: their colours are the
            image, the places in the table are the labels.
        series: which series of a folder of DICOM files is meant; no other source is told by it.

    Raises:
        SeriesError: a ScanError, where a folder of DICOM files holds several series and none is chosen.
        ScanError: where it is missing, empty, damaged, cut short, or not what its suffix says.
    """
    if isinstance(source, np.ndarray):
        from medseg.scans.memory import ArrayScan

        return ArrayScan(source)
    path, name = Path(source), str(source)
    suffix = suffix_of(path)
    with _readable(name):
        module = _reader(path, name, suffix)
        if module == "picture":
            return _backend(module).open_file(path, name, labels=labels)
        if module == "dicom":
            return _backend(module).open_file(path, name, series)
        return _backend(module).open_file(path, name)


def create_mask(
    path: str | Path | None,
    like: Scan,
    *,
    dtype: DTypeLike = np.uint8,
    channels: int | None = None,
    chunks: Sequence[int] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    join: bool = False,
    unit_interval: bool = False,
    segmentation: Segmentation | None = None,
) -> MaskSink:
    """A sink for a mask on the grid of ``like``; the path's suffix tells the format, no path keeps it in memory.

    The mask grows beside its final place, as ``.NAME.partial``, and gets its name when it is closed.

    Args:
        path: the mask's final name, or None.
        like: the scan whose shape, affine, unit and axes it gets.
        dtype: of its voxels.
        channels: None for one label a voxel; a number for (channels, *spatial), such as probabilities.
        chunks: one length an axis: how a Zarr is stored. Other formats take any box.
        resume: go on with a partial mask of the same layout, if there is one.
        overwrite: replace a file of that name, once the mask is complete.
        join: write boxes of the partial mask of the same layout that another process of the same job has created.
            Nothing is created, tidied or removed, and closing leaves the mask to that process. Processes that write
            disjoint boxes never harm each other's.
        unit_interval: what is written are shares from 0 to 1. As uint8 they are stored as 255 times the share,
            rounded, which NIfTI says of itself (every program reads 0 to 1) and other formats don't; as float16,
            NIfTI and OME-TIFF, which have no such type, store float32.
        segmentation: what the values mean; DICOM SEG needs it, other formats don't hold it.

    Raises:
        OutputError: where the name is taken, its format can't be written or can't hold such a mask, the disk refuses,
            or there is no mask to join.
    """
    from medseg.scans.memory import MemorySink
    from medseg.scans.sink import as_output_error

    final = Path("mask" if path is None else path)
    request = replace(
        _request(final, like, dtype, channels, chunks), resume=resume, join=join, unit_interval=unit_interval
    )
    request = replace(request, segmentation=segmentation)
    if unit_interval and request.dtype.kind != "f" and request.dtype != np.uint8:
        raise OutputError(f"{final}: shares from 0 to 1 are stored as uint8, float16 or float32, not {request.dtype}")
    if path is None:
        if join:
            raise OutputError("a mask in memory cannot be joined by another process; give it a path")
        return MemorySink(request)
    module = _writer(final)
    if not join:
        _check_free(final, like, overwrite)
        with as_output_error(final):
            final.parent.mkdir(parents=True, exist_ok=True)
    sink: MaskSink = _backend(module).create(request)
    return sink


def mask_bytes(
    path: str | Path | None,
    like: Scan,
    dtype: DTypeLike = np.uint8,
    channels: int | None = None,
    chunks: Sequence[int] | None = None,
) -> int:
    """The most bytes of disk that writing such a mask takes at any moment: what is partial and what is final, together.

    It holds for voxels that do not compress at all; labels end far below it. Nothing is created.

    Raises:
        OutputError: as :func:`create_mask`, where the format can't be written.
    """
    if path is None:
        return 0
    final = Path(path)
    most: int = _backend(_writer(final)).peak_bytes(_request(final, like, dtype, channels, chunks))
    return most


def _request(path: Path, like: Scan, dtype: DTypeLike, channels: int | None, chunks: Sequence[int] | None) -> Request:
    from medseg.scans.sink import Request

    wanted = tuple(int(n) for n in chunks) if chunks is not None else None
    if wanted is not None and (len(wanted) != len(like.shape) or min(wanted) < 1):
        raise OutputError(f"{path}: chunks {wanted} must be one length of 1 or more for each of {len(like.shape)} axes")
    if channels is not None and channels < 1:
        raise OutputError(f"{path}: a mask needs at least one channel, not {channels}")
    return Request(path, like, _mask_dtype(path, dtype), channels, wanted)


def _backend(module: str) -> Any:
    return import_module(f"medseg.scans.{module}")


def _readable(name: str) -> Any:
    from medseg.scans.header import as_scan_error

    return as_scan_error(name, "cannot be opened")


def _reader(path: Path, name: str, suffix: str) -> str:
    """The backend of a path that exists and is what its suffix says."""
    from medseg.scans.contents import check_contents, is_dicom, is_zarr

    if not path.exists():
        raise ScanError(f"{name}: no such file or folder")
    if path.is_dir():
        return "zarr" if is_zarr(path) else "dicom"
    if not suffix and is_dicom(path):
        return "dicom"
    if not suffix:
        raise ScanError(f"{name}: this format is not supported; supported are {' '.join(SUFFIXES)}")
    if not path.stat().st_size:
        raise ScanError(f"{name}: is empty (0 bytes)")
    check_contents(path, name, suffix)
    return READERS[suffix]


def _writer(path: Path) -> str:
    """The backend that writes a path's suffix."""
    suffix = suffix_of(path)
    if suffix not in WRITERS:
        raise OutputError(f"{path}: cannot write this format; masks are written as {' '.join(WRITERS)}")
    return WRITERS[suffix]


def _mask_dtype(path: Path, dtype: DTypeLike) -> np.dtype:
    wanted = np.dtype(dtype)
    if wanted.kind == "b":
        return np.dtype(np.uint8)
    if wanted.kind not in "iuf":
        raise OutputError(f"{path}: a mask of {wanted} cannot be written; use an integer or real type")
    return wanted


def _check_free(path: Path, like: Scan, overwrite: bool) -> None:
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise OutputError(f"{path}: exists; use --overwrite to replace it")
    if os.path.exists(like.name) and os.path.samefile(path, like.name):
        raise OutputError(f"{path}: is the scan itself; write the mask under another name")
