"""Pictures: PNG, JPEG, GIF and BMP, read by Pillow, 16-bit PNG by imagecodecs (Pillow makes 8 bits of its colours).

A picture is decoded whole when it is first read, since its compression allows no less, and the last ones are kept;
larger ones belong into a tiled TIFF or a Zarr. Axes are YX, the affine is the identity and the unit «pixel»: the dots
per inch in such files are a printer's. Pixels are as stored: an EXIF orientation is not applied, since masks have none.

    1 bit          0 and 1
    2, 4 bit       as 8 bit: the largest value is 255
    grey, alpha    channels as stored: 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA
    colour table   its colours, 3 channels, or 1 where all are grey; as labels (``open_scan(..., labels=True)``) the
                   places in the table, but still the values of a grey one
"""

from __future__ import annotations

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ScanError
from medseg.geometry import Box
from medseg.scans import note as notes
from medseg.scans.cache import PIECES
from medseg.scans.formats import suffix_of
from medseg.scans.header import FileScan, Header, as_scan_error

FORMATS = {
    ".png": ["PNG"],
    ".jpg": ["JPEG", "MPO"],
    ".jpeg": ["JPEG", "MPO"],
    ".gif": ["GIF"],
    ".bmp": ["BMP", "DIB"],
}
"""Pillow's decoders for each suffix; no other of its many is tried."""

MODES = {
    "1": (1, np.uint8),
    "L": (1, np.uint8),
    "LA": (2, np.uint8),
    "RGB": (3, np.uint8),
    "RGBA": (4, np.uint8),
    "I;16": (1, np.uint16),
    "I": (1, np.int32),
    "F": (1, np.float32),
}
"""Channels and type of Pillow's modes."""

SAMPLES = {0: 1, 2: 3, 4: 2, 6: 4}
"""Channels of PNG's colour types, but for the one with a table."""


class PictureScan(FileScan):
    """A picture file."""

    def __init__(self, header: Header, path: Path, labels: bool, deep: bool) -> None:
        super().__init__(header)
        self._path = path
        self.labels = labels
        self._deep = deep
        self._key = object()

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(open_file, labels=self.labels), (Path(self.name), self.name)

    def _read(self, box: Box) -> NDArray:
        pixels = PIECES.get(self._key, self._decode)
        return np.array(pixels[(slice(None), *box.slices)], dtype=self.dtype, order="C")

    def _decode(self) -> NDArray:
        if self._deep:
            pixels = _decode_deep(self._path)
        else:
            with _opened(self._path, self.name) as image:
                pixels = _pixels(image, self.labels)
        pixels = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
        if pixels.shape != (self.channels, *self.shape):
            raise ScanError(f"{self.name}: changed while it was open")
        return np.ascontiguousarray(pixels, dtype=self.dtype)


def open_file(path: Path, name: str, *, labels: bool = False) -> PictureScan:
    """Opens a picture; only its header is read.

    Raises:
        ScanError: where it is damaged, animated, CMYK, or too large to be decoded whole.
    """
    with as_scan_error(name, "is damaged or no picture"), _opened(path, name) as image:
        if image.format in ("GIF", "PNG") and getattr(image, "n_frames", 1) > 1:
            raise ScanError(f"{name}: is animated ({image.n_frames} frames); save the frames as a TIFF stack")
        deep = _deep_samples(path)
        if deep:
            channels, dtype = deep, np.dtype(np.uint16)
        else:
            channels, dtype = _kind(image, name, labels)
        width, height = image.size
        header = Header(name, (height, width), channels, dtype, "YX", np.eye(4), "pixel")
        text = image.info.get(notes.KEY)
        header = notes.with_note(header, notes.loads(text)) if isinstance(text, str) else header
    return PictureScan(header, path, labels, bool(deep))


def _opened(path: Path, name: str) -> Any:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(path, formats=FORMATS[suffix_of(path)])
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ScanError(
            f"{name}: announces more than {limit} pixels, too many for a picture, which is decoded whole; "
            "convert it to a tiled TIFF or a Zarr if it is genuine"
        ) from error


def _kind(image: Any, name: str, labels: bool) -> tuple[int, np.dtype]:
    """Channels and type of what will be decoded."""
    if image.mode == "P":
        return (1 if labels or _grey_table(image) is not None else 3), np.dtype(np.uint8)
    if image.mode not in MODES:
        raise ScanError(f"{name}: {image.mode} pictures are not supported; convert it to grey, RGB or RGBA")
    channels, dtype = MODES[image.mode]
    return channels, np.dtype(dtype)


def _grey_table(image: Any) -> NDArray | None:
    """The values of a colour table that holds greys only."""
    table = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    if (table == table[:, :1]).all():
        return np.pad(table[:, 0], (0, 256 - len(table)))
    return None


def _pixels(image: Any, labels: bool) -> NDArray:
    if image.mode != "P":
        return np.asarray(image)
    table = _grey_table(image)
    if table is not None:
        return np.asarray(table[np.asarray(image)])
    return np.asarray(image if labels else image.convert("RGB"))


def _deep_samples(path: Path) -> int:
    """The channels of a 16-bit PNG, 0 for any other file."""
    with open(path, "rb") as file:
        head = file.read(26)
    is_deep = head.startswith(b"\x89PNG") and head[12:16] == b"IHDR" and head[24] == 16
    return SAMPLES.get(head[25], 0) if is_deep else 0


def _decode_deep(path: Path) -> NDArray:
    import imagecodecs

    pixels: NDArray = imagecodecs.png_decode(path.read_bytes())
    return pixels
