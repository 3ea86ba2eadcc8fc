"""OME-Zarr 0.4 (Zarr 2) and 0.5 (Zarr 3), level 0 of the multiscale image, and plain Zarr arrays.

The spacing and origin are the coordinate transformations', of the level and then of the whole image; axes keep the
array's order; the channel axis goes in front and a time axis of length 1 is dropped. A plain array of two or three axes
is one channel with the identity affine. Chunks are decoded by codecs from an explicit list: a codec such as pickle
would run what the file says.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import OutputError, ScanError
from medseg.geometry import Box
from medseg.scans import note as notes
from medseg.scans.header import FileScan, Header, as_scan_error, diagonal
from medseg.scans.protocol import Scan, spacing_of
from medseg.scans.sink import Request, as_output_error, fitted, publish, remove, sync
from medseg.scans.units import LONG_NAMES, MILLIMETRES, short_unit

CODECS = {
    *("bytes", "endian", "transpose", "sharding_indexed", "crc32c", "crc32", "adler32", "fletcher32"),
    *("blosc", "zstd", "gzip", "zlib", "lz4", "lz4hc", "bz2", "lzma", "zfpy", "pcodec"),
    *("shuffle", "delta", "fixedscaleoffset", "quantize", "bitround", "packbits", "astype"),
}
"""Codecs that only compute."""

CHUNK = {2: 512, 3: 64}
"""The default chunk's sides."""

LEVEL = "0"


class ZarrScan(FileScan):
    """An array of a Zarr store. ``roles`` says of each of its axes: a spatial letter, «C», or «T»."""

    def __init__(self, header: Header, array: Any, roles: str) -> None:
        super().__init__(header)
        self._array = array
        self._roles = roles

    def _read(self, box: Box) -> NDArray:
        spatial = iter(box.slices)
        other: dict[str, Any] = {"C": slice(None), "T": 0}
        index = tuple(other[r] if r in other else next(spatial) for r in self._roles)
        voxels = np.asarray(self._array[index])
        kept = self._roles.replace("T", "")
        voxels = np.moveaxis(voxels, kept.index("C"), 0) if "C" in kept else voxels[None]
        return np.ascontiguousarray(voxels, dtype=self.dtype)


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
    if array.ndim not in CHUNK:
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
    if wrong or len(spatial) not in CHUNK:
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


# Writing


class ZarrSink:
    """A mask as OME-Zarr 0.5 with one level, and the exact grid as a note.

    Chunks are written whole or not at all (each is renamed into place), so that they outlive a killed process.

    Attributes:
        resumed: whether it goes on with what an interrupted sink left.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        side = CHUNK[len(request.shape)]
        self._chunks = request.chunks or tuple(min(side, n) for n in request.shape)
        self._lock = threading.Lock()
        self._open = True
        with as_output_error(request.path):
            found = self._resumed() if request.resume else None
            self.resumed = found is not None
            self._array = found if found is not None else self._created()

    @property
    def chunks(self) -> tuple[int, ...]:
        """The array's spatial chunks."""
        return self._chunks

    def write(self, box: Box, labels: NDArray) -> None:
        """Writes the labels of a box; chunks that it fills partly are read, changed and written again."""
        labels = fitted(self.request, box, labels)
        if box.voxels:
            with as_output_error(self.request.path), self._lock:
                self._array[(..., *box.slices)] = labels

    def flush(self) -> None:
        """Every write has reached the operating system already, and so outlives this process."""

    def close(self) -> None:
        """Gives the folder its final name."""
        if not self._open:
            return
        with as_output_error(self.request.path):
            _tidy(self.request.partial)
            sync(self.request.partial)
            publish(self.request.partial, self.request.path)
        self._open = False

    def _attributes(self) -> dict[str, Any]:
        return {"ome": _metadata(self.request), notes.KEY: notes.note_of(self.request.like)}

    def _all_chunks(self) -> tuple[int, ...]:
        return self._chunks if self.request.channels is None else (1, *self._chunks)

    def _resumed(self) -> Any:
        """The array of an interrupted sink with this layout, or None."""
        import zarr

        try:
            group = zarr.open_group(str(self.request.partial), mode="r+")
            array = group[LEVEL]
            same = dict(group.attrs) == self._attributes() and isinstance(array, zarr.Array)
        except (OSError, KeyError, ValueError, TypeError):
            return None
        layout = (self.request.array_shape, self._all_chunks(), self.request.dtype)
        if not same or (array.shape, array.chunks, array.dtype) != layout:
            return None
        _tidy(self.request.partial)
        return array

    def _created(self) -> Any:
        import zarr
        from zarr.codecs import ZstdCodec

        remove(self.request.partial)
        group = zarr.create_group(str(self.request.partial), zarr_format=3, attributes=self._attributes())
        return group.create_array(
            LEVEL,
            shape=self.request.array_shape,
            chunks=self._all_chunks(),
            dtype=self.request.dtype,
            fill_value=0,
            compressors=ZstdCodec(level=3),
            dimension_names=[axis["name"] for axis in _axis_entries(self.request)],
        )


def create(request: Request) -> ZarrSink:
    """A sink for an OME-Zarr."""
    if request.dtype.kind == "f" and request.dtype.itemsize > 8:
        raise OutputError(f"{request.path}: Zarr has no type {request.dtype}; use float32")
    return ZarrSink(request)


def _tidy(folder: Path) -> None:
    """Removes chunks that a killed process left half written."""
    for left in folder.rglob("*.partial"):
        left.unlink()


def _axis_entries(request: Request) -> list[dict[str, str]]:
    like = request.like
    unit = {"unit": LONG_NAMES[like.unit]} if like.unit in LONG_NAMES else {}
    spatial = [{"name": letter.lower(), "type": "space", **unit} for letter in like.axes]
    return spatial if request.channels is None else [{"name": "c", "type": "channel"}, *spatial]


def _metadata(request: Request) -> dict[str, Any]:
    """The «ome» attribute. An origin is only stated where the axes are the world's: OME knows no rotation."""
    like, axes = request.like, len(request.shape)
    millimetres = MILLIMETRES[like.unit]
    lead = 0 if request.channels is None else 1
    scale = [1.0] * lead + [s / millimetres for s in spacing_of(like.affine, axes)]
    steps: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    if _is_diagonal(like):
        origin = [0.0] * lead + [float(o) / millimetres for o in like.affine[:axes, 3]]
        steps.append({"type": "translation", "translation": origin})
    level = {"path": LEVEL, "coordinateTransformations": steps}
    return {"version": "0.5", "multiscales": [{"axes": _axis_entries(request), "datasets": [level]}]}


def _is_diagonal(like: Scan) -> bool:
    affine = like.affine[:, [*range(len(like.shape)), 3]]
    linear = affine[:3, :-1]
    return bool(np.array_equal(linear, diagonal(spacing_of(like.affine, len(like.shape)))[:3, : len(like.shape)]))
