"""How the pixels of a DICOM file are stored: the Image Pixel module (PS3.3 C.7.6.3) and the transfer syntax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from medseg.errors import ScanError
from medseg.scans.dicom_kinds import QUANTITIES
from medseg.scans.dicom_values import Attributes

GREYS = ("MONOCHROME1", "MONOCHROME2")
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
"""Photometric interpretations that are read; pydicom turns the last four into RGB."""

UNCOMPRESSED: dict[str, Literal["<", ">"]] = {
    "1.2.840.10008.1.2": "<",
    "1.2.840.10008.1.2.1": "<",
    "1.2.840.10008.1.2.2": ">",
}
"""The byte order of each transfer syntax that stores values as they are."""

DEFLATED = "1.2.840.10008.1.2.1.99"


@dataclass(frozen=True)
class PixelFormat:
    """How a frame is stored: the Image Pixel module (PS3.3 C.7.6.3), the transfer syntax's UID, and OB or OW."""

    rows: int
    columns: int
    samples: int
    photometric: str
    allocated: int
    stored: int
    high: int
    signed: bool
    planar: int
    frames: int
    syntax: str
    type: str
    inverted: bool

    @property
    def order(self) -> Literal["<", ">"] | None:
        """The byte order of values that are stored as they are, None for compressed ones."""
        return UNCOMPRESSED.get(self.syntax)

    @property
    def dtype(self) -> np.dtype:
        """Of the stored values, in the machine's byte order."""
        return np.dtype(f"{'i' if self.signed else 'u'}{self.allocated // 8}")

    @property
    def limits(self) -> tuple[int, int]:
        """The least and the largest value that the stored bits can hold."""
        if self.signed:
            return -(1 << (self.stored - 1)), (1 << (self.stored - 1)) - 1
        return 0, (1 << self.stored) - 1

    @property
    def by_position(self) -> bool:
        """Whether a part of a frame can be read on its own."""
        return self.samples == 1 and self.order is not None and not (self.order == ">" and self.allocated == 8)

    @property
    def frame_bytes(self) -> int:
        """Of one frame that is not compressed; of single bits the whole bytes that hold it."""
        values = self.rows * self.columns * self.samples
        shared = self.photometric == "YBR_FULL_422" and self.order is not None
        return -(-(values * 2 // 3 if shared else values) * self.allocated // 8)

    @property
    def nbytes(self) -> int:
        """Of all frames that are not compressed: single bits go on from frame to frame without a gap."""
        if self.allocated == 1:
            return -(-self.rows * self.columns * self.frames // 8)
        return self.frame_bytes * self.frames


def read_format(attributes: Attributes, syntax: str, type: str) -> PixelFormat:
    """The format of a file's pixels.

    Raises:
        ScanError: where it is incomplete, contradictory, or not supported, or the decoder that it needs is missing.
    """
    name = attributes.name
    rows, columns = attributes.needed("Rows"), attributes.needed("Columns")
    samples, photometric = attributes.integer("SamplesPerPixel") or 1, attributes.word("PhotometricInterpretation")
    allocated, stored = attributes.needed("BitsAllocated"), attributes.needed("BitsStored")
    high = attributes.integer("HighBit")
    frames = attributes.integer("NumberOfFrames")
    modality = attributes.word("Modality")
    found = PixelFormat(
        rows,
        columns,
        samples,
        photometric,
        allocated,
        stored,
        stored - 1 if high is None else high,
        attributes.needed("PixelRepresentation") == 1,
        attributes.integer("PlanarConfiguration") or 0,
        1 if frames is None else frames,
        syntax,
        type,
        photometric == "MONOCHROME1" and modality not in QUANTITIES,
    )
    _check(found, name)
    check_decoder(found, name)
    return found


def _check(found: PixelFormat, name: str) -> None:
    if (found.samples, found.photometric in GREYS, found.photometric in COLOURS) not in (
        (1, True, False),
        (3, False, True),
    ):
        colour = "a colour table" if found.photometric == "PALETTE COLOR" else f"{found.samples} samples a pixel"
        raise ScanError(f"{name}: its pixels have {colour}, which is not supported; convert it to grey or RGB")
    if found.allocated not in (8, 16, 32) or not 1 <= found.stored <= found.allocated:
        raise ScanError(
            f"{name}: stores {found.stored} bits a pixel in {found.allocated}; only 8, 16 and 32 are supported"
        )
    if not found.stored - 1 <= found.high < found.allocated:
        raise ScanError(f"{name}: its HighBit {found.high} does not fit {found.stored} of {found.allocated} bits")
    if min(found.rows, found.columns, found.frames) < 1:
        raise ScanError(f"{name}: has no pixels ({found.frames} frames of {found.rows} x {found.columns})")


def check_decoder(found: PixelFormat, name: str) -> None:
    """Refuses a transfer syntax that is not supported, or whose decoder is missing.

    Raises:
        ScanError: saying what to do.
    """
    if found.syntax in UNCOMPRESSED:
        return
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    kind = UID(found.syntax).name if UID(found.syntax).is_transfer_syntax else "an unknown transfer syntax"
    try:
        decoder = get_decoder(UID(found.syntax))
    except NotImplementedError:
        raise ScanError(
            f"{name}: is stored as {kind}, which is not supported; convert it, for example with dcmconv or dcmdjpeg"
        ) from None
    if not decoder.is_available:
        raise ScanError(
            f"{name}: is compressed ({kind}), and no decoder for that is installed: pip install 'medseg[dicom]'"
        )
