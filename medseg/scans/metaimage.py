"""The header of MetaImage: .mha with its voxels behind it, .mhd with a data file beside it.

Row n of TransformMatrix is the direction of axis n, times its ElementSpacing (ElementSize where that is missing, else
1 pixel); Offset is the centre of the first voxel; DistanceUnits are millimetres unless stated. The world is LPS. Where
TransformMatrix is missing the axes are the world's and the file does not say how the patient lies.
CenterOfRotation and AnatomicalOrientation change nothing, as in ITK. Channels lie side by side.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from medseg.errors import ScanError
from medseg.scans.header import Header
from medseg.scans.itk_header import HEADER_BYTES, LPS, Stored, Text, affine_of, beside
from medseg.scans.raw import RawArray
from medseg.scans.units import MILLIMETRES, short_unit

TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
"""MetaIO's element types; its long is 4 bytes wide in files."""

ALIASES = {
    **dict.fromkeys(("position", "origin"), "offset"),
    **dict.fromkeys(("rotation", "orientation"), "transformmatrix"),
    "elementbyteordermsb": "binarydatabyteordermsb",
}

LINE = re.compile(rb"\s*([^=:\r\n]+?)[ \t]*[=:][ \t]*([^\r\n]*?)[ \t]*\r?\n")


def parse(path: Path, name: str) -> Stored:
    """Reads the header.

    Raises:
        ScanError: where it is no MetaImage header, or one of what is no image.
    """
    text = _text(path, name)
    dims = text.number("NDims", 0)
    kind = text.fields.get("objecttype", "Image")
    if kind.lower() != "image" or dims < 2:
        raise ScanError(f"{name}: is a MetaIO {kind} of {dims} axes, no image of two or three")
    sizes = text.integers("DimSize", dims)
    if any(n != 1 for n in sizes[3:]):
        raise ScanError(f"{name}: has {dims} axes {tuple(sizes)}; store each volume as an image of its own")
    shape = tuple(sizes[:3])
    channels = text.number("ElementNumberOfChannels", 1)
    dtype = _dtype(text)
    header = _header(text, dims, shape, channels, dtype)
    roles = "ZYX"[-len(shape) :] + ("C" if channels > 1 else "")
    stored = (*shape[::-1], channels) if channels > 1 else shape[::-1]
    return _placed(path, text, header, roles, RawArray(stored, dtype))


def _text(path: Path, name: str) -> Text:
    """The fields up to ElementDataFile, which is the last."""
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if b"\n" not in head[-1:] and len(head) < HEADER_BYTES:
        head += b"\n"
    fields: dict[str, str] = {}
    position = 0
    while match := LINE.match(head, position):
        key = match[1].decode("latin-1").lower()
        fields[ALIASES.get(key, key)] = match[2].decode("utf-8", "surrogateescape")
        position = match.end()
        if key == "elementdatafile":
            return Text(name, fields, position)
    raise ScanError(f"{name}: is no MetaImage header: it does not end with ElementDataFile")


def _dtype(text: Text) -> np.dtype:
    word = text.fields.get("elementtype", "").upper()
    code = TYPES.get(word.removesuffix("_ARRAY"))
    if code is None:
        raise ScanError(f"{text.name}: its ElementType «{word[:40]}» is unknown; known are {' '.join(TYPES)}")
    if not _truth(text, "binarydata", True):
        raise ScanError(f"{text.name}: holds its values as text; store them as binary data")
    return np.dtype(code).newbyteorder(">" if _truth(text, "binarydatabyteordermsb", False) else "<")


def _truth(text: Text, field: str, default: bool) -> bool:
    word = text.fields.get(field, "")
    return word[:1] in "Tt1" if word else default


def _header(text: Text, dims: int, shape: tuple[int, ...], channels: int, dtype: np.dtype) -> Header:
    axes = len(shape)
    stated = next((f for f in ("ElementSpacing", "ElementSize") if f.lower() in text.fields), None)
    spacing = np.array(text.numbers(stated, dims) if stated else [1.0] * dims)[:axes]
    if not (spacing > 0).all():
        raise ScanError(f"{text.name}: its voxel spacing {tuple(map(float, spacing))} is not positive; mend the header")
    directed = "transformmatrix" in text.fields
    rows = np.array(text.numbers("TransformMatrix", dims * dims)) if directed else np.eye(dims)
    origin = np.array(text.numbers("Offset", dims) if "offset" in text.fields else [0.0] * dims)[:axes]
    unit = short_unit(text.fields.get("distanceunits")) or ("mm" if stated else "pixel")
    columns = rows.reshape(dims, dims)[:axes, :axes].T * spacing
    affine = affine_of(columns * MILLIMETRES[unit], origin * MILLIMETRES[unit], LPS)
    return Header(text.name, shape, channels, dtype, "XYZ"[:axes], affine, unit, anatomical=directed and axes == 3)


def _placed(path: Path, text: Text, header: Header, roles: str, layout: RawArray) -> Stored:
    """Where the voxels are: behind the header, or in the file that it names."""
    stated = text.fields["elementdatafile"]
    local = stated.lower() == "local"
    data = path if local else beside(path, text.name, stated)
    offset = text.end if local else text.number("HeaderSize", 0)
    if _truth(text, "compresseddata", False):
        return Stored(header, roles, layout, data, stream=max(offset, 0), compression="zlib")
    if offset < 0:
        offset = data.stat().st_size - layout.nbytes
    return Stored(header, roles, RawArray(layout.shape, layout.dtype, offset), data)
