"""OME-Zarr 0.4 (Zarr 2) and 0.5 (Zarr 3), level 0 of the multiscale image, and plain Zarr arrays.

The spacing and origin are the coordinate transformations', of the level and then of the whole image; axes keep the
array's order; the channel axis goes in front and a time axis of length 1 is dropped. A plain array of two or three axes
is one channel with the identity affine. Chunks are decoded by codecs from an explicit list: a codec such as pickle
would run what the file says. A chunk (of a sharded array: an inner chunk) is decoded once as long as it is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ScanError
from medseg.geometry import Box
from medseg.scans import note as notes
from medseg.scans.cache import PIECES
from medseg.scans.header import FileScan, Header, as_scan_error, diagonal
from medseg.scans.units import MILLIMETRES, short_unit

CODECS = {
    *("bytes", "endian", "transpose", "sharding_indexed", "crc32c", "crc32", "adler32", "fletcher32"),
    *("blosc", "zstd", "gzip", "zlib", "lz4", "lz4hc", "bz2", "lzma", "zfpy", "pcodec"),
    *("shuffle", "delta", "fixedscaleoffset", "quantize", "bitround", "packbits", "astype"),
}
"""Codecs that only compute."""


class Chunked:
    """A Zarr array that is read chunk by chunk through the pieces that are kept."""

    def __init__(self, array: Any) -> None:
        self._array = array
        self._chunks = tuple(map(int, array.chunks))
        self._key = object()

    def read(self, box: Box, out: NDArray) -> None:
        """Fills ``out`` (box.shape) with the values of a box within the array, in ``out``'s type."""
        touched = [range(a // n, -(-b // n)) for a, b, n in zip(box.start, box.stop, self._chunks, strict=True)]
        for index in product(*touched):
            piece = PIECES.get((self._key, index), lambda i=index: self._decoded(i))  # type: ignore[misc]
            offset = tuple(i * n - a for i, n, a in zip(index, self._chunks, box.start, strict=True))
            target = Box.of(piece.shape).shift(offset).clip(box.shape)
            out[target.slices] = piece[target.shift(tuple(-n for n in offset)).slices]

    def _decoded(self, index: tuple[int, ...]) -> NDArray:
        sides = zip(index, self._chunks, self._array.shape, strict=True)
        slices = tuple(slice(i * n, min((i + 1) * n, extent)) for i, n, extent in sides)
        return _thinned(np.asarray(self._array[slices]))


def _thinned(piece: NDArray) -> NDArray:
    """The piece itself, or one value repeated without memory where all bits are the same, as in a missing chunk."""
    bits = piece.view(f"u{piece.itemsize}")
    first = bits[(0,) * bits.ndim]
    if first != bits[(-1,) * bits.ndim] or not (bits == first).all():
        return piece
    return np.broadcast_to(piece[(slice(0, 1),) * piece.ndim].copy(), piece.shape)


class ZarrScan(FileScan):
    """An array of a Zarr store. ``roles`` says of each of its axes: a spatial letter, «C», or «T»."""

    def __init__(self, header: Header, array: Any, roles: str) -> None:
        super().__init__(header)
        self._chunked = Chunked(array)
        self._roles = roles

    def _read(self, box: Box) -> NDArray:
        sides = zip(box.start, box.stop, strict=True)
        other = {"C": (0, self.channels), "T": (0, 1)}
        stored = [other[role] if role in other else next(sides) for role in self._roles]
        out = np.empty((self.channels, *box.shape), self.dtype)
        self._chunked.read(Box(tuple(a for a, _ in stored), tuple(b for _, b in stored)), _as_stored(out, self._roles))
        return out


def _as_stored(out: NDArray, roles: str) -> NDArray:
    """A view of (C, *spatial) with the axes of a stored array."""
    kept = roles.replace("T", "")
    view = np.moveaxis(out, 0, kept.index("C")) if "C" in kept else out[0]
    return np.expand_dims(view, roles.index("T")) if "T" in roles else view


def open_file(path: Path, name: str) -> ZarrScan:
    """Opens a Zarr folder; only its metadata is read.

    Raises:
        ScanError: where it is damaged, holds no image, or one with several times, channels without a name, or
            values that are no numbers.
    """
    import zarr

    with as_scan_error(name, "is damaged or no Zarr"):
        node = zarr.open(str(path), mode="r")
        if isinstance(node, zarr.Array):
            return _plain(node, name)
        attributes = dict(node.attrs)
        image = _multiscale(attributes, name)
        array = _level(node, image, name)
        return _image(array, image, attributes.get(notes.KEY), name)


def _plain(array: Any, name: str) -> ZarrScan:
    _check_array(array, name)
    if array.ndim not in (2, 3):
        raise ScanError(
            f"{name}: is a plain Zarr array of shape {array.shape}, whose axes nobody names; "
            "only two or three axes are taken for one channel: add OME metadata"
        )
    roles = "ZYX"[-array.ndim :]
    return ZarrScan(Header(name, array.shape, 1, _dtype(array), roles, np.eye(4), "pixel"), array, roles)


def _image(array: Any, image: dict[str, Any], note: Any, name: str) -> ZarrScan:
    axes = _axes(image, array.ndim)
    roles = "".join(_role(axis) for axis in axes)
    _check_roles(roles, array.shape, name)
    spatial = [n for n, role in enumerate(roles) if role in "XYZ"]
    units = [short_unit(axes[n].get("unit")) for n in spatial]
    known = {u for u in units if u}
    unit = "pixel" if not known else known.pop() if len(known) == 1 else "mm"
    millimetres = np.array([MILLIMETRES[u or unit] for u in units])
    scale, origin = _transformed(image, array.ndim, name)
    affine = diagonal(tuple(scale[spatial] * millimetres), tuple(origin[spatial] * millimetres))
    channels = array.shape[roles.index("C")] if "C" in roles else 1
    letters = "".join(roles[n] for n in spatial)
    shape = tuple(array.shape[n] for n in spatial)
    header = Header(name, shape, channels, _dtype(array), letters, affine, unit)
    return ZarrScan(notes.with_note(header, note), array, roles)


def _multiscale(attributes: dict[str, Any], name: str) -> dict[str, Any]:
    found = attributes.get("ome", attributes).get("multiscales")
    if not found:
        raise ScanError(f"{name}: is a Zarr group without an OME multiscale image; name the array within it")
    return dict(found[0])


def _level(group: Any, image: dict[str, Any], name: str) -> Any:
    """The array of level 0, which lies within the group."""
    path = PurePosixPath(image["datasets"][0]["path"])
    if path.is_absolute() or ".." in path.parts:
        raise ScanError(f"{name}: its image {path} lies outside its folder")
    array = group[str(path)]
    _check_array(array, name)
    return array


def _check_array(array: Any, name: str) -> None:
    if np.dtype(array.dtype).kind not in "buif":
        raise ScanError(f"{name}: holds values of type {array.dtype}; only integers and real numbers are images")
    foreign = sorted(set(_codecs(array.metadata.to_dict())) - CODECS)
    if foreign:
        raise ScanError(f"{name}: is stored by {', '.join(foreign)}, which is not supported; store it by zstd or blosc")


def _codecs(metadata: Any) -> Iterator[str]:
    """The names of all codecs in an array's metadata, of the nested ones too."""
    if isinstance(metadata, dict):
        for key in ("codecs", "index_codecs", "filters", "compressor"):
            entries = metadata.get(key) or []
            for entry in [entries] if isinstance(entries, dict) or hasattr(entries, "get_config") else entries:
                plain = entry if isinstance(entry, dict) else entry.get_config()
                yield str(plain.get("name", plain.get("id"))).removeprefix("numcodecs.")
                yield from _codecs(plain.get("configuration", plain))


def _dtype(array: Any) -> np.dtype:
    return np.dtype(np.uint8) if np.dtype(array.dtype).kind == "b" else np.dtype(array.dtype)


def _axes(image: dict[str, Any], ndim: int) -> list[dict[str, Any]]:
    """The axes as OME-Zarr 0.4 writes them; 0.3 gives bare names, and before that they were t, c, z, y, x."""
    axes = image.get("axes") or list("tczyx")[-ndim:]
    return [{"name": axis} if isinstance(axis, str) else axis for axis in axes]


def _role(axis: dict[str, Any]) -> str:
    name = str(axis.get("name", "")).upper()
    kind = axis.get("type", {"T": "time", "C": "channel"}.get(name, "space"))
    return {"time": "T", "channel": "C"}.get(kind, name)


def _check_roles(roles: str, shape: Sequence[int], name: str) -> None:
    spatial = roles.replace("C", "").replace("T", "")
    wrong = len(roles) != len(shape) or len(set(roles)) != len(roles) or not set(spatial) <= set("XYZ")
    if wrong or len(spatial) not in (2, 3):
        raise ScanError(f"{name}: its axes {roles} of shape {tuple(shape)} are no image of two or three spatial axes")
    if "T" in roles and shape[roles.index("T")] != 1:
        times = shape[roles.index("T")]
        raise ScanError(f"{name}: holds {times} points in time; store each as an image of its own")


def _transformed(image: dict[str, Any], ndim: int, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and translation of every stored axis, in the file's units: the level's, then the whole image's."""
    scale, origin = np.ones(ndim), np.zeros(ndim)
    steps = [*_steps(image["datasets"][0]), *_steps(image)]
    for step in steps:
        kind = step.get("type")
        if kind == "scale" and "scale" in step:
            factor = np.asarray(step["scale"], dtype=np.float64).reshape(ndim)
            scale, origin = scale * factor, origin * factor
        elif kind == "translation" and "translation" in step:
            origin = origin + np.asarray(step["translation"], dtype=np.float64).reshape(ndim)
        elif kind != "identity":
            raise ScanError(
                f"{name}: its coordinate transformation «{kind}» is not supported; only scale and translation"
            )
    return scale, origin


def _steps(level: dict[str, Any]) -> list[dict[str, Any]]:
    return list(level.get("coordinateTransformations") or [])
