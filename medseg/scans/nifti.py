"""NIfTI-1 and NIfTI-2, single files (.nii, .nii.gz) and pairs (.hdr + .img), read and written.

The header is nibabel's to understand: affine by its sform/qform rules, shape, data type, scaling. The voxels are read
by position, a box at a time. Axes are the file's own (X, Y, Z), X fastest; the fourth axis, or the fifth of a vector
image (x, y, z, 1, c), is the channels. A file that states no unit is in millimetres, as every program takes it, and one
whose sform and qform are both of code 0 (the standard's method 1) has spacings and does not say how the patient lies.
"""

from __future__ import annotations

import gzip
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import OutputError, ScanError
from medseg.geometry import Box
from medseg.scans import note as notes
from medseg.scans.gz import LEAST_BLOCK_BYTES, GzipBytes
from medseg.scans.header import FileScan, Header, as_scan_error
from medseg.scans.protocol import Scan
from medseg.scans.raw import BLOCK_BYTES, Pread, RawArray, pread_file
from medseg.scans.scratch import HEAD_BYTES, Encode, Scratch, ScratchSink, deflated_bytes
from medseg.scans.sink import Request
from medseg.scans.units import MILLIMETRES

UNITS = {1: "m", 2: "mm", 3: "um"}
"""NIfTI's codes; any other is taken for millimetres, see :attr:`NiftiScan.assumes_unit`."""

COMMENT = 6
"""The code of a header extension that is plain text."""


class NiftiScan(FileScan):
    """A NIfTI file. ``nifti_header`` is nibabel's."""

    def __init__(
        self,
        header: Header,
        nifti_header: Any,
        layout: RawArray,
        pread: Pread,
        scaling: tuple[float, float] | None,
        data: Path,
        assumes_unit: bool,
    ) -> None:
        super().__init__(header)
        self._data = data
        self._assumes_unit = assumes_unit
        self.nifti_header = nifti_header
        self._layout = layout
        self._pread = pread
        self._scaling = scaling

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, or both halves of a pair."""
        pair = (self._data.with_suffix(".hdr"), self._data) if self._data.suffix.lower() == ".img" else ()
        return tuple(dict.fromkeys(p for p in (Path(self.name), *pair) if p.exists()))

    @property
    def assumes_unit(self) -> bool:
        """Whether neither the header nor a note in it names the unit."""
        return self._assumes_unit

    @property
    def second_affine(self) -> NDArray[np.float64] | None:
        """The qform's, where the header has both forms and the quaternion is one: the sform counts."""
        raw = self.nifti_header
        if not (raw["sform_code"] > 0 and raw["qform_code"] > 0):
            return None
        with _silent():
            try:
                affine = _in_millimetres(raw.get_qform(), _unit_of(raw) or "mm", len(self.shape))
            except ValueError:
                return None
        return affine if np.isfinite(affine).all() else None

    def _read(self, box: Box) -> NDArray:
        axes = len(self.shape)
        rest = self._layout.shape[: len(self._layout.shape) - axes]
        reversed_box = Box((0,) * len(rest) + box.start[::-1], rest + box.stop[::-1])
        raw = self._layout.read(self._pread, reversed_box)
        if raw.dtype.names:
            raw = np.stack([raw[name] for name in raw.dtype.names])
        voxels = raw.reshape(self.channels, *box.shape[::-1])
        voxels = _scaled(voxels.transpose(0, *range(axes, 0, -1)), self._scaling)
        return np.ascontiguousarray(voxels, dtype=self.dtype)


def open_file(path: Path, name: str) -> NiftiScan:
    """Opens a NIfTI file; only its header is read.

    Raises:
        ScanError: where it is no NIfTI, is cut short, or holds what is no image (complex numbers, CIFTI, ANALYZE).
    """
    with as_scan_error(name, "is damaged or no NIfTI file"), _silent():
        image = _load(path, name)
        raw = image.header
        shape, channels = _split(name, raw.get_data_shape(), image.dataobj.dtype)
        stored = image.dataobj
        scaling = None if (stored.slope, stored.inter) == (1, 0) else (stored.slope, stored.inter)
        unit = _unit_of(raw) or "mm"
        affine = _in_millimetres(image.affine, unit, len(shape))
        dtype = _dtype_of(name, stored.dtype, scaling)
        own = Header(name, shape, channels, dtype, "XYZ"[: len(shape)], affine, unit, _is_placed(raw))
        header = notes.with_note(own, _note_in(raw), also=shape[:2] if shape[2:] == (1,) else ())
        data = Path(image.file_map["image"].filename)
        series = () if channels == 1 or stored.dtype.names else (channels,)
        layout = RawArray((*series, *header.shape[::-1]), stored.dtype, int(stored.offset))
        assumes_unit = header is own and _unit_of(raw) is None
        return NiftiScan(header, raw, *_bytes_of(data, name, layout), scaling, data, assumes_unit)


def _load(path: Path, name: str) -> Any:
    import nibabel
    from nibabel.nifti1 import Nifti1Pair

    for missing in _partner(path):
        raise ScanError(f"{name}: its other half {missing.name} is missing; a pair needs both .hdr and .img")
    image = nibabel.load(path, mmap=False)
    if not isinstance(image, Nifti1Pair):
        kind = type(image).__name__.removesuffix("Image")
        raise ScanError(f"{name}: holds {kind} data, not a NIfTI image; convert it to .nii.gz")
    return image


def _partner(path: Path) -> Iterator[Path]:
    """The other half of a pair, where it is missing."""
    other = {".hdr": ".img", ".img": ".hdr"}.get(path.suffix.lower())
    if other:
        candidates = [path.with_suffix(other), path.with_suffix(other.upper())]
        if not any(c.exists() for c in candidates):
            yield candidates[0]


def _split(name: str, stored: tuple[int, ...], dtype: np.dtype) -> tuple[tuple[int, ...], int]:
    """The spatial shape and the number of channels in a header's dimensions."""
    if len(stored) < 2 or min(stored) < 1:
        raise ScanError(f"{name}: its dimensions {stored} are no image of two or three axes")
    spatial, rest = stored[:3], [n for n in stored[3:] if n != 1]
    if len(rest) > 1:
        raise ScanError(
            f"{name}: has {len(stored)} axes {stored}; at most one axis beyond the third may be longer than 1"
        )
    if dtype.names and rest:
        raise ScanError(f"{name}: is a series of {rest[0]} colour images; split it into single images")
    return spatial, len(dtype.names) if dtype.names else rest[0] if rest else 1


def _dtype_of(name: str, stored: np.dtype, scaling: tuple[float, float] | None) -> np.dtype:
    """What reading gives: the stored type, or what nibabel's scaling makes of it."""
    base = stored[0] if stored.names else stored
    if base.kind not in "iuf":
        raise ScanError(f"{name}: holds values of type {base}; only integers, real numbers and RGB are images")
    base = np.dtype(np.float64) if base.itemsize > 8 else base
    return _scaled(np.zeros(1, base), scaling).dtype


def _scaled(voxels: NDArray, scaling: tuple[float, float] | None) -> NDArray:
    if scaling is None:
        return voxels
    from nibabel.volumeutils import apply_read_scaling

    scaled: NDArray = apply_read_scaling(voxels, np.asanyarray(scaling[0]), np.asanyarray(scaling[1]))
    return scaled


def _unit_of(raw: Any) -> str | None:
    """The unit that a header names."""
    return UNITS.get(int(raw["xyzt_units"]) & 7)


def _is_placed(raw: Any) -> bool:
    """Whether a header says how the patient lies: with either form, and not by the size of voxels alone."""
    return bool(raw["sform_code"] > 0 or raw["qform_code"] > 0)


def _in_millimetres(affine: NDArray, unit: str, axes: int) -> NDArray[np.float64]:
    """The affine in millimetres; two axes get a third direction where the file gives none."""
    result = np.array(affine, dtype=np.float64)
    result[:3] *= MILLIMETRES[unit]
    if axes == 2 and np.isfinite(result).all() and not np.linalg.det(result[:3, :3]):
        normal = np.cross(result[:3, 0], result[:3, 1])
        result[:3, 2] = normal / (np.linalg.norm(normal) or 1.0)
    return result


def _bytes_of(path: Path, name: str, layout: RawArray) -> tuple[RawArray, Pread]:
    if path.suffix.lower() == ".gz":
        wide = RawArray(layout.shape, layout.dtype, layout.offset, gap=LEAST_BLOCK_BYTES)
        return wide, GzipBytes(path, name, layout.end).pread
    actual = path.stat().st_size
    if actual < layout.end:
        raise ScanError(
            f"{name}: is cut short: its header announces {layout.end} bytes and there are {actual}; fetch it again"
        )
    return layout, pread_file(path)


def _note_in(raw: Any) -> Any:
    for extension in raw.extensions:
        if extension.get_code() == COMMENT:
            found = notes.loads(extension.get_content().decode("latin-1").rstrip("\0"))
            if found is not None:
                return found
    return None


@contextmanager
def _silent() -> Iterator[None]:
    """Without nibabel's own lines on stderr about headers that it mends."""
    from nibabel.imageglobals import logger

    silence = logging.Filter("medseg.none")
    logger.addFilter(silence)
    try:
        yield
    finally:
        logger.removeFilter(silence)


# Writing


def create(request: Request) -> ScratchSink:
    """A sink for .nii or .nii.gz: the header of ``like`` where that is a NIfTI, without its texts."""
    request = request.without_half
    head = _head(request)
    lead = 0 if request.channels is None else 1
    order = [*range(lead), *range(len(request.array_shape) - 1, lead - 1, -1)]
    encode: Encode | None = _gzip if _is_gzip(request.path) else None
    return ScratchSink(request, head, request.dtype.newbyteorder("<"), order, encode)


def peak_bytes(request: Request) -> int:
    """The partial file's bytes, which is the final one or, with a gzip stream of it, the scratch file."""
    nbytes = request.without_half.nbytes + HEAD_BYTES
    return nbytes + deflated_bytes(nbytes) if _is_gzip(request.path) else nbytes


def _is_gzip(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _head(request: Request) -> bytes:
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    like = request.like
    source = like.nifti_header if isinstance(like, NiftiScan) else None
    big = max(request.array_shape) > 32767 or isinstance(source, Nifti2Header)
    raw = (Nifti2Header if big else Nifti1Header)(endianness="<")
    try:
        raw.set_data_dtype(request.dtype)
    except Exception as error:
        raise OutputError(f"{request.path}: NIfTI has no type {request.dtype}") from error
    raw.set_data_shape(_stored_shape(request))
    _set_geometry(raw, like, source)
    raw["scl_slope"], raw["scl_inter"] = 1 / 255 if request.counts_255 else 1, 0
    _add_note(raw, request)
    stream = io.BytesIO()
    raw.write_to(stream)
    return stream.getvalue().ljust(int(raw.get_data_offset()), b"\0")


def _stored_shape(request: Request) -> tuple[int, ...]:
    if request.channels is None:
        return request.shape
    return (*request.shape, *(1,) * (3 - len(request.shape)), request.channels)


def _set_geometry(raw: Any, like: Scan, source: Any) -> None:
    """The source's own numbers and codes where it is a NIfTI, else an sform, and a qform where one can say it."""
    if source is not None:
        for field in ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"):
            raw[field] = source[field]
        for field in ("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"):
            raw[field] = source[field]
        raw["pixdim"][:4] = source["pixdim"][:4]
        raw["xyzt_units"] = int(source["xyzt_units"]) & 7
        return
    unit = like.unit if like.unit in UNITS.values() else "mm"
    affine = np.array(like.affine, dtype=np.float64)
    affine[:3] /= MILLIMETRES[unit]
    code = 1 if like.anatomical else 2
    raw["xyzt_units"] = next(number for number, word in UNITS.items() if word == unit)
    raw.set_sform(affine, code)
    raw.set_qform(affine, code, strip_shears=True)
    if not np.allclose(raw.get_qform(), affine, rtol=1e-4, atol=1e-4 * np.abs(affine[:3, :3]).max()):
        raw["qform_code"] = 0


def _add_note(raw: Any, request: Request) -> None:
    """What NIfTI cannot say goes into a header extension."""
    from nibabel.nifti1 import Nifti1Extension

    like, axes = request.like, len(request.shape)
    plain = like.anatomical == _is_placed(raw) and like.axes == "XYZ"[:axes] and like.unit in UNITS.values()
    if plain and (axes == 3 or request.channels is None):
        return
    raw.extensions.append(Nifti1Extension("comment", notes.dumps(like).encode("ascii")))


def _gzip(scratch: Scratch, path: Path) -> None:
    """The scratch file, which is a NIfTI already, as a gzip stream without name and time."""
    end = scratch.layout.end
    with (
        open(path, "wb") as file,
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as stream,
    ):
        for offset in range(0, end, BLOCK_BYTES):
            stream.write(scratch.pread(min(BLOCK_BYTES, end - offset), offset))
