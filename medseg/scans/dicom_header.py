"""One DICOM file: what it is, and where its pixels begin.

Only the elements in :data:`ELEMENTS` are looked at, and those that a caller names: no name, no date, no number of a
patient is among the former, and a number is compared or digested by those that ask for it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from medseg.errors import ScanError
from medseg.scans.contents import is_gzip, opened
from medseg.scans.dicom_facts import KEYS, Facts
from medseg.scans.dicom_format import DEFLATED, read_format
from medseg.scans.dicom_frames import PER_FRAME, SHARED, Frame, Group, frame_facts, read_frame
from medseg.scans.dicom_kinds import no_image
from medseg.scans.dicom_pixels import StoredPixels, check_length
from medseg.scans.dicom_values import Attributes
from medseg.scans.header import as_scan_error

ELEMENTS = (
    *KEYS,
    "SOPClassUID",
    "SeriesInstanceUID",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    SHARED,
    PER_FRAME,
)
"""What is read of a header."""

SIEMENS = (0x0019, 0x0010, 0x100A)
"""The group of Siemens' private MR header, its creator's element, and its number of images in a mosaic."""


@dataclass(frozen=True)
class Instance:
    """One file, as far as sorting files into series needs it.

    Attributes:
        path: the file.
        name: what complaints call it.
        attributes: its header.
        syntax: its transfer syntax's UID.
        kind: what it is where it is no image, else None.
        element: where its pixel data begin, how long they are, and OB or OW; None where there are none.
        zipped: whether the file is a gzip stream.
    """

    path: Path
    name: str
    attributes: Attributes
    syntax: str
    kind: str | None
    element: tuple[int, int, str] | None
    zipped: bool

    @property
    def series(self) -> str:
        """Its series' UID, «» where it states none."""
        return self.attributes.word("SeriesInstanceUID")

    @cached_property
    def facts(self) -> list[Facts]:
        """What each of its frames says for ``--series-filter``."""
        top = {key: self.attributes.numbers_as_words(key) for key in KEYS}
        groups = self._groups()
        if not groups:
            return [top]
        return [{**top, **frame_facts(group)} for group in groups]

    def frames(self) -> list[Frame]:
        """All of its slices, parsed strictly.

        Raises:
            ScanError: where a number is none, the pixels are not supported or cut short, or it is a mosaic.
        """
        attributes = self.attributes
        with as_scan_error(self.name, "its header is damaged"):
            if self.element is None:
                raise ScanError(f"{self.name}: holds no pixels: it is no image, or is cut short")
            self._check_kind()
            offset, length, type = self.element
            pixels = StoredPixels(self.path, read_format(attributes, self.syntax, type), offset, self.zipped)
            with opened(self.path, self.zipped) as file:
                check_length(file, pixels, length, self.name)
            groups = self._groups() or [Group(attributes, attributes)]
            if len(groups) != pixels.format.frames:
                raise ScanError(
                    f"{self.name}: has {pixels.format.frames} frames and says the place of {len(groups)}: it is a film "
                    "or a stack of unknown geometry; save its frames as single images"
                )
            return [
                read_frame(pixels, number, group, facts)
                for number, (group, facts) in enumerate(zip(groups, self.facts, strict=True))
            ]

    def _groups(self) -> list[Group]:
        """The functional groups of each frame; none for a file that has no such."""
        shared = next(iter(self.attributes.items(SHARED)), None)
        return [Group(frame, shared) for frame in self.attributes.items(PER_FRAME)]

    def _check_kind(self) -> None:
        attributes = self.attributes
        private = attributes.elements.get_item(SIEMENS[0] << 16 | SIEMENS[2])
        if "MOSAIC" in attributes.words("ImageType") or (private is not None and private.value):
            raise ScanError(
                f"{self.name}: is a Siemens mosaic, whose slices lie side by side in one picture; convert it with "
                "dcm2niix"
            )
        if attributes.items("ModalityLUTSequence"):
            raise ScanError(f"{self.name}: its values are given by a table (Modality LUT), which is not supported")


def read_instance(path: Path, name: str, more: Sequence[str] = ()) -> Instance:
    """Reads a file's header.

    Args:
        path: the file.
        name: what complaints call it.
        more: elements that are read beside :data:`ELEMENTS`.

    Raises:
        ScanError: where it is no DICOM file, or damaged.
    """
    zipped = is_gzip(path)
    with as_scan_error(name, "is damaged or no DICOM file"), opened(path, zipped) as file:
        elements = _elements(file, more)
        syntax = _syntax(elements, name)
        element = _pixel_element(file, elements)
        attributes = Attributes(name, elements)
        kind = no_image(attributes.word("SOPClassUID"))
        return Instance(path, name, attributes, syntax, kind, element, zipped)


def _elements(file: BinaryIO, more: Sequence[str]) -> Any:
    from pydicom import dcmread
    from pydicom.datadict import tag_for_keyword

    tags: list[Any] = [tag_for_keyword(keyword) for keyword in (*ELEMENTS, *more)]
    tags += [SIEMENS[0] << 16 | element for element in SIEMENS[1:]]
    return dcmread(file, stop_before_pixels=True, specific_tags=tags, force=True)


def _syntax(elements: Any, name: str) -> str:
    found = elements.file_meta.get_item("TransferSyntaxUID") if elements.file_meta else None
    if found is not None:
        value = found.value
        syntax = str(value.decode("ascii", "replace") if isinstance(value, bytes) else value).strip(" \0")
        if syntax == DEFLATED:
            raise ScanError(f"{name}: is deflated as a whole, which is not supported; convert it with dcmconv")
        return syntax
    implicit, little = elements.original_encoding
    if not little:
        return "1.2.840.10008.1.2.2"
    return "1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1"


def _pixel_element(file: BinaryIO, elements: Any) -> tuple[int, int, str] | None:
    """Where the value of the pixel data element begins, at whose start ``file`` stands, its length and type."""
    implicit, little = elements.original_encoding
    order = "<" if little else ">"
    head = file.read(12)
    if len(head) < 8 or struct.unpack(order + "HH", head[:4]) != (0x7FE0, 0x0010):
        return None
    start = file.tell() - len(head)
    if implicit:
        return start + 8, int(struct.unpack(order + "I", head[4:8])[0]), "OW"
    if len(head) < 12:
        return None
    return start + 12, int(struct.unpack(order + "I", head[8:12])[0]), head[4:6].decode("latin-1")
