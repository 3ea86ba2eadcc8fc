"""A prepared case on the disk, and whether it is whole.

    CACHE/prepared/KEY/
      record.json     grids, types, chunks, counts, and a digest of the names and sizes of all that follows
      image/          Zarr 3 (C, *grid)
      label/          Zarr 3 (1, *grid)
      voxels.npy      (n, 1 + d): a class and a voxel of it; class 0 is all that count, where labels are ignored

A case gets its name once it is whole. Nothing in it names a patient, a file or a place.

Legend: C channels, d axes of the grid.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.files import read_json, sha256_of, write_json
from medseg.preparing.arrays import ChunkedScan
from medseg.preparing.request import FORMAT
from medseg.scans.cache_folder import cache_folder
from medseg.scans.header import Header
from medseg.scans.protocol import Scan
from medseg.scans.sink import as_output_error
from medseg.training.census import CaseCensus

RECORD, IMAGE, LABEL, VOXELS = "record.json", "image", "label", "voxels.npy"


def prepared_folder() -> Path:
    """Where prepared cases are kept, made where it is missing.

    Raises:
        MedsegError: where it cannot be made.
    """
    folder = cache_folder() / "prepared"
    with as_output_error(folder):
        folder.mkdir(exist_ok=True)
    return folder


def place_of(key: str) -> Path:
    """The folder of a prepared case."""
    return prepared_folder() / key


@dataclass(frozen=True)
class Grid:
    """What is known of an array but its name."""

    shape: tuple[int, ...]
    channels: int
    dtype: str
    axes: str
    affine: tuple[tuple[float, ...], ...]
    unit: str
    anatomical: bool
    chunk: tuple[int, ...]

    @classmethod
    def of(cls, scan: Scan, chunk: tuple[int, ...]) -> Grid:
        """A scan's, stored in chunks."""
        affine = tuple(tuple(map(float, row)) for row in scan.affine)
        about = (str(scan.dtype), scan.axes, affine, scan.unit, scan.anatomical)
        return cls(tuple(scan.shape), scan.channels, *about, chunk)

    def open(self, folder: Path, name: str) -> ChunkedScan:
        """The array as a scan of that name."""
        header = Header(
            name,
            tuple(self.shape),
            self.channels,
            np.dtype(self.dtype),
            self.axes,
            np.array(self.affine),
            self.unit,
            self.anatomical,
        )
        return ChunkedScan(header, folder, self.chunk)


@dataclass(frozen=True)
class Record:
    """What ``record.json`` says.

    Attributes:
        key: the request's, which the folder is called by.
        dataset: the digest of the data set that it was made for.
        image: the image's array.
        label: the label's.
        counts: voxels of each class, the background first.
        voxels: the digest of ``voxels.npy``; chunks have a checksum each.
        files: the digest of the names and sizes of the files beside the record.
        nbytes: what they take on the disk.
    """

    key: str
    dataset: str
    image: Grid
    label: Grid
    counts: tuple[int, ...]
    voxels: str
    files: str
    nbytes: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"format": FORMAT, **vars(self), IMAGE: vars(self.image), LABEL: vars(self.label)}

    @classmethod
    def from_dict(cls, content: Any) -> Record:
        """From JSON.

        Raises:
            MedsegError: where it is not what :meth:`to_dict` gives.
        """
        try:
            fields = {key: value for key, value in content.items() if key != "format"}
            return cls(**fields | {name: Grid(**content[name]) for name in (IMAGE, LABEL)})
        except (AttributeError, KeyError, TypeError):
            raise MedsegError("its record is not as it was written") from None


def write_record(folder: Path, key: str, dataset: str, image: Grid, label: Grid, census: CaseCensus) -> None:
    """Completes a folder that holds both arrays."""
    np.save(folder / VOXELS, _rows(census), allow_pickle=False)
    counts = tuple(map(int, census.counts))
    record = Record(key, dataset, image, label, counts, sha256_of(folder / VOXELS), *listing(folder))
    write_json(folder / RECORD, record.to_dict())


def whole(key: str) -> Record:
    """The record of a prepared case whose files are all there, in the sizes that were written.

    Raises:
        MedsegError: where it is damaged.
        FileNotFoundError: where there is none.
    """
    folder = place_of(key)
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    record = Record.from_dict(read_json(folder / RECORD, "its record"))
    if record.key != key or record.files != listing(folder)[0]:
        raise MedsegError("its files are not those that were written")
    return record


def used(record: Record) -> None:
    """Notes that a prepared case was used now."""
    os.utime(place_of(record.key) / RECORD)


def census_of(record: Record) -> CaseCensus:
    """What the label holds.

    Raises:
        MedsegError: where the file has changed.
    """
    path = place_of(record.key) / VOXELS
    if sha256_of(path) != record.voxels:
        raise MedsegError(f"its {VOXELS} has changed")
    rows = np.load(path, allow_pickle=False).astype(np.int64)
    classes = [rows[rows[:, 0] == value, 1:] for value in np.unique(rows[:, 0]) if value]
    return CaseCensus(np.array(record.counts, np.int64), classes, rows[rows[:, 0] == 0, 1:])


def listing(folder: Path) -> tuple[str, int]:
    """The digest of the names and sizes of all files beside the record, and their bytes."""
    digest, total = hashlib.sha256(), 0
    for name, size in sorted(sizes_of(folder)):
        if name != RECORD:
            digest.update(f"{name}:{size}\n".encode())
            total += size
    return digest.hexdigest(), total


def sizes_of(folder: Path) -> Iterator[tuple[str, int]]:
    """Every file below a folder, by its place in it, and its bytes."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            yield path.relative_to(folder).as_posix(), path.stat().st_size


def _rows(census: CaseCensus) -> NDArray[np.int32]:
    """(n, 1 + d): the voxels of each class, the class before them."""
    present = [k for k, count in enumerate(census.counts) if k and count]
    listed = [(0, census.labelled), *zip(present, census.foreground, strict=True)]
    return np.concatenate([np.column_stack([np.full(len(voxels), k), voxels]) for k, voxels in listed]).astype(np.int32)
