"""What a file really is, by its first bytes, for one clear sentence where its suffix is wrong."""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from pathlib import Path
from typing import Any

from medseg.errors import ScanError
from medseg.scans.formats import READERS, suffix_of

SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "zip"),
    (b"\x89HDF\r\n\x1a\n", "HDF5"),
    (b"CDF\x01", "NetCDF"),
    (b"%PDF", "PDF"),
    (b"NRRD", "NRRD"),
)

EXPECTED = {
    ".nii.gz": "gzip",
    ".dcm.gz": "gzip",
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".gif": "GIF",
    ".bmp": "BMP",
    **dict.fromkeys((".tif", ".tiff", ".ome.tif", ".ome.tiff", ".svs", ".ndpi"), "TIFF"),
    **dict.fromkeys((".nii", ".hdr"), "NIfTI"),
    **dict.fromkeys((".mha", ".mhd"), "MetaImage"),
    **dict.fromkeys((".nrrd", ".nhdr"), "NRRD"),
    **dict.fromkeys((".dcm", ".dicom", ".ima"), "DICOM"),
}
"""What a suffix promises; .img has no signature of its own."""

META_FIELDS = re.compile(rb"^[ \t]*(ObjectType|NDims|DimSize|ElementDataFile)[ \t]*[=:]", re.MULTILINE)
"""MetaImage has no signature: its header is such lines."""

BARE_DICOM = re.compile(rb"\x08\x00[\x00-\x18]\x00(?:[A-Z]{2}|..\x00\x00)", re.DOTALL)
"""DICOM without its preamble begins with an element of group 8, little endian: its type, or a length below 64 KiB."""

ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray")


def check_contents(path: Path, name: str, suffix: str) -> None:
    """Raises ScanError where the first bytes of a file aren't those of its suffix."""
    expected = EXPECTED.get(suffix)
    if expected is None:
        return
    with open(path, "rb") as file:
        head = file.read(540)
    found = kind_of(head)
    if expected in (found, _signed(head)) or (expected == "NIfTI" and found is None):
        return
    what = f"its contents are {found}" if found else "its first bytes are no image's"
    raise ScanError(f"{name}: is no {expected} file, though named {suffix}: {what}; give it its right suffix")


def kind_of(head: bytes) -> str | None:
    """The format that begins with these bytes, or None where it is unknown.

    What is DICOM as well as something else (PS3.10 7.1 leaves the preamble to other formats, such as TIFF) is DICOM.
    """
    signed = None if _has_preamble(head) else _signed(head)
    if signed is not None:
        return signed
    if head[344:348] in (b"n+1\0", b"ni1\0") or head[4:8] in (b"n+2\0", b"ni2\0"):
        return "NIfTI"
    if _begins_dicom(head):
        return "DICOM"
    if META_FIELDS.search(head):
        return "MetaImage"
    return "text" if _is_text(head) else None


def _signed(head: bytes) -> str | None:
    """The format whose signature comes first of all."""
    return next((kind for signature, kind in SIGNATURES if head.startswith(signature)), None)


def _begins_dicom(head: bytes) -> bool:
    return _has_preamble(head) or BARE_DICOM.match(head) is not None


def _has_preamble(head: bytes) -> bool:
    return head[128:132] == b"DICM"


def _is_text(head: bytes) -> bool:
    try:
        words = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return bool(words) and all(sign in "\t\n\r\f\ufeff" or sign.isprintable() for sign in words)


def is_zarr(folder: Path) -> bool:
    """Whether a folder is a Zarr group or array."""
    return any((folder / mark).is_file() for mark in ZARR_MARKS)


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do; a gzip stream is looked into where its name ends in .gz.

    One that lacks the preamble is not told from raw values where its suffix is another format's.
    """
    begins = _begins_dicom if READERS.get(suffix_of(path), "dicom") == "dicom" else _has_preamble
    try:
        with opened(path, path.name.lower().endswith(".gz") and is_gzip(path)) as file:
            return begins(file.read(132))
    except (OSError, EOFError, zlib.error):
        return False


def is_gzip(path: Path) -> bool:
    """Whether a file is a gzip stream."""
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def opened(path: Path, zipped: bool) -> Any:
    """A file, or the bytes that a gzip stream holds."""
    return gzip.open(path, "rb") if zipped else open(path, "rb")
