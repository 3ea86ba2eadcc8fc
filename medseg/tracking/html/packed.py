"""Arrays of small whole numbers as text: what differs from voxel to voxel, compressed, in Base64.

    values  7 7 7 9 9      differences  7 0 0 2 0      low bytes, then high bytes      gzip      Base64

Differences wrap around, so that every array comes back as it was. Runs of one label cost next to nothing, and the
bytes that neighbouring voxels share are gone before they are compressed. A page undoes it with what browsers have:
``atob``, ``DecompressionStream`` and a running sum (:file:`data.js`).
"""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEVEL = 6
"""Of compression: higher ones take several times as long for a few per cent."""


@dataclass(frozen=True)
class Packed:
    """An array as text.

    Attributes:
        text: Base64.
        bytes: of each value, 1 or 2.
        shape: of the array.
    """

    text: str
    bytes: int
    shape: tuple[int, ...]


def pack(array: NDArray) -> Packed:
    """Of an array of uint8 or uint16.

    Raises:
        TypeError: for another type.
    """
    if array.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"arrays of uint8 or uint16 are packed, not of {array.dtype}")
    flat = array.ravel()
    differences = np.diff(flat, prepend=flat.dtype.type(0)).astype(flat.dtype.newbyteorder("<"), copy=False)
    planes = differences.view(np.uint8).reshape(-1, flat.itemsize).T
    text = base64.b64encode(gzip.compress(planes.tobytes(), LEVEL, mtime=0)).decode("ascii")
    return Packed(text, flat.itemsize, array.shape)


def unpack(packed: Packed) -> NDArray:
    """The array that was packed, as the page reads it."""
    planes = np.frombuffer(gzip.decompress(base64.b64decode(packed.text)), np.uint8).reshape(packed.bytes, -1)
    wide = np.dtype(f"<u{packed.bytes}")
    differences = np.ascontiguousarray(planes.T).view(wide).ravel()
    return np.cumsum(differences, dtype=wide).reshape(packed.shape)
