"""Synthetic data sets worth segmenting, of any size: rendered block by block, the same bytes every time."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from medseg.datasets.cases import IMAGES, LABELS
from medseg.datasets.cells2d import Cells2d
from medseg.datasets.labels import Labels
from medseg.datasets.layouts import DATASET, DatasetInfo
from medseg.datasets.noise import seed_of
from medseg.datasets.organs3d import Grid, Organs3d
from medseg.errors import MedsegError, OutputError, nearest
from medseg.files import write_json
from medseg.geometry import Box
from medseg.scans.blocks import boxes
from medseg.scans.header import Header, HeaderScan, diagonal
from medseg.scans.scan import create_mask

Kind = Literal["cells2d", "organs3d"]
FORMATS: dict[str, tuple[str, ...]] = {
    "cells2d": (".tif", ".png", ".ome.zarr"),
    "organs3d": (".nii.gz", ".nii", ".ome.zarr"),
}
"""The suffixes that each kind can be written as, the default first."""
BLOCKS: dict[str, tuple[int, ...]] = {"cells2d": (1024, 1024), "organs3d": (256, 256, 32)}
"""What is rendered at a time: the memory that a phantom needs."""
CELL_LABELS = Labels({"membrane": 0, "cell": 255}, ("membrane",))
ORGAN_LABELS = Labels({"background": 0, "liver": 1, "kidney": 2, "spleen": 3, "vessel": 4})
PIXEL_NM = 4.0
ORIENTATIONS = ((-1, -1, 1), (1, 1, 1))
"""The directions of the voxel axes, case by case in turn: LPS, RAS."""
LEAST = 16


class Scene(Protocol):
    """What can render a box of an image and of its classes."""

    def render(self, box: Box) -> tuple[NDArray, NDArray]:
        """The image and the classes, each (*box.shape)."""


@dataclass(frozen=True)
class Phantom:
    """One case: what to render, and the header of its image."""

    scene: Scene
    header: Header
    labels: Labels
    block: tuple[int, ...]

    def write(self, image: Path, label: Path) -> None:
        """Writes both files, block by block."""
        grid = HeaderScan(self.header)
        pixels = create_mask(image, grid, dtype=self.header.dtype, chunks=self._chunks())
        values = create_mask(label, grid, dtype=self.labels.dtype, chunks=self._chunks())
        for box in boxes(self.header.shape, self.block):
            rendered, classes = self.scene.render(box)
            pixels.write(box, rendered)
            values.write(box, self.labels.decode(classes.astype(np.uint8)))
        pixels.close()
        values.close()

    def _chunks(self) -> tuple[int, ...]:
        """How a Zarr is stored: a block in eight or sixteen pieces."""
        return tuple(min(n, b // 4 if b > 64 else b) for n, b in zip(self.header.shape, self.block, strict=True))


def write_phantom(
    kind: str,
    out: Path,
    cases: int,
    size: Sequence[int],
    seed: int = 0,
    image_format: str | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Writes a data set: ``images/``, ``labels/`` and ``dataset.json``, under its final name only once it is
    whole.

    Args:
        kind: ``cells2d`` (8 bit, membranes between cells) or ``organs3d`` (HU, four organs).
        out: the data set's folder.
        cases: how many.
        size: voxels along each axis of the files (rows, columns; x, y, z); one number is used for every axis.
        seed: a case is a function of it and the case's number alone.
        image_format: the files' suffix; see ``FORMATS``.
        overwrite: whether a folder of that name may be replaced.

    Returns:
        the folder.

    Raises:
        MedsegError: for a kind, number, size or format that cannot be.
        OutputError: where the folder exists and is not empty, or cannot be written.
    """
    if kind not in get_args(Kind):
        raise MedsegError(
            f"there is no phantom {kind!r}{nearest(kind, get_args(Kind))}: choose {' or '.join(get_args(Kind))}"
        )
    suffix = _suffix(kind, image_format)
    shape = _shape(kind, size)
    if cases < 1:
        raise MedsegError(f"a phantom needs at least 1 case, not {cases}")
    if out.exists() and not overwrite and (out.is_file() or any(out.iterdir())):
        raise OutputError(f"{out} exists: choose another folder, or replace it with --overwrite")
    try:
        beside = _fresh(out)
        for number in range(cases):
            name = f"case_{number:0{max(3, len(str(cases - 1)))}d}{suffix}"
            phantom_case(kind, shape, seed, number).write(beside / IMAGES / name, beside / LABELS / name)
        write_json(
            beside / DATASET,
            _info(kind, shape).model_dump(mode="json", exclude_none=True, exclude={"patients", "description"}),
        )
        _publish(beside, out)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}") from error
    return out


def phantom_case(kind: str, shape: tuple[int, ...], seed: int, number: int) -> Phantom:
    """One case of a phantom, rendered only where it is asked for."""
    own = seed_of(seed, kind, number)
    if kind == "cells2d":
        affine = diagonal((PIXEL_NM * 1e-6,) * 2)
        header = Header(f"{kind} {number}", shape, 1, np.dtype(np.uint8), "YX", affine, "nm")
        return Phantom(Cells2d(own), header, CELL_LABELS, BLOCKS[kind])
    x, y, z = shape
    grid = Grid((x, y, z), ORIENTATIONS[number % len(ORIENTATIONS)])
    header = Header(f"{kind} {number}", shape, 1, np.dtype(np.int16), "XYZ", grid.affine, "mm", anatomical=True)
    return Phantom(Organs3d(own, grid), header, ORGAN_LABELS, BLOCKS[kind])


def _info(kind: str, shape: tuple[int, ...]) -> DatasetInfo:
    labels = CELL_LABELS if kind == "cells2d" else ORGAN_LABELS
    spacing = [PIXEL_NM] * 2 if kind == "cells2d" else list(Grid((shape[0], shape[1], shape[-1])).spacing_mm)
    return DatasetInfo(
        name=kind,
        dims=2 if kind == "cells2d" else 3,
        channels=1,
        labels=dict(labels.values),
        foreground=list(labels.foreground),
        spacing=spacing,
        unit="nm" if kind == "cells2d" else "mm",
    )


def _suffix(kind: str, wanted: str | None) -> str:
    if wanted is None:
        return FORMATS[kind][0]
    suffix = "." + wanted.lower().removeprefix(".")
    if suffix not in FORMATS[kind]:
        raise MedsegError(f"{kind} cannot be written as {suffix}: choose one of {', '.join(FORMATS[kind])}")
    return suffix


def _shape(kind: str, size: Sequence[int]) -> tuple[int, ...]:
    axes = len(BLOCKS[kind])
    shape = tuple(map(int, size)) * (axes if len(size) == 1 else 1)
    if len(shape) != axes or min(shape) < LEAST:
        given = ",".join(map(str, size))
        raise MedsegError(
            f"size {given} does not fit {kind}: give 1 or {axes} numbers of at least {LEAST}, such as 256"
        )
    return shape


def _fresh(out: Path) -> Path:
    """The empty folder beside ``out`` in which the data set grows."""
    beside = out.with_name(f".{out.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    for folder in (IMAGES, LABELS):
        (beside / folder).mkdir(parents=True)
    return beside


def _publish(beside: Path, out: Path) -> None:
    if out.is_dir() and not any(out.iterdir()):
        out.rmdir()
    if out.exists():
        old = out.with_name(f".{out.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
        beside.rename(out)
        shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink()
    else:
        beside.rename(out)
