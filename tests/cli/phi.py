"""What must not be told: marks for the attributes that DICOM PS3.15 protects, and a search for them in anything."""

import base64
import binascii
import gzip
import io
import re
import zipfile
import zlib
from hashlib import sha256
from pathlib import Path

from numcodecs import Blosc, Zstd
from PIL import Image, UnidentifiedImageError
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

PROTECTED = (Path(__file__).parent / "protected_attributes.txt").read_text().split()
"""Keywords of DICOM PS3.15, table E.1-1: what the basic application level confidentiality profile protects.

Left out are those whose values no text can be planted in (curve data, overlay planes), those of messages and of a
file's own header, and those that pydicom's dictionary does not name.
"""

MARK = "Zq7Wvx"
"""What every planted text begins with; numbers and dates are planted as they are.

A shorter one turns up by chance in the pictures of a page, which are long texts of letters and digits.
"""
TEXTS = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"}
PLAIN = {
    "DA": lambda n: f"17{n % 90 + 10:02d}{n % 12 + 1:02d}{n % 28 + 1:02d}",
    "TM": lambda n: f"0{n % 9}{n % 50 + 10}{n % 49 + 11}.7{n:05d}",
    "DT": lambda n: f"17{n % 90 + 10:02d}{n % 12 + 1:02d}{n % 28 + 1:02d}0{n % 9}{n % 50 + 10}{n % 49 + 11}.7{n:05d}",
    "UI": lambda n: f"1.2.826.0.1.3680043.8.498.7{n:05d}",
    "DS": lambda n: f"7{n:05d}.25",
}


def marked(name, number=0):
    """A name that must not be told."""
    return f"{MARK}{name}{number}"


def plant(made, number=0):
    """Marks every protected attribute of a data set that it does not need to be read; returns what was planted.

    Args:
        made: a pydicom data set; its identifiers that are marked are those of one series.
        number: of the patient, so that two have marks of their own.
    """
    planted = set()
    for place, keyword in enumerate(PROTECTED):
        value = _value(keyword, 1000 * number + place)
        if value is not None:
            setattr(made, keyword, value)
            planted |= {value} if isinstance(value, str) and not value.upper().startswith(MARK.upper()) else set()
    private = made.private_block(0x0099, "MEDSEG TEST", create=True)
    private.add_new(1, "LO", marked("private", number))
    return planted | {MARK}


def _value(keyword, number):
    kind = dictionary_VR(tag_for_keyword(keyword))
    if kind == "SQ":
        item = Dataset()
        item.PatientName = marked("item", number)
        item.CodeMeaning = marked("code", number)
        return Sequence([item])
    if kind in TEXTS:
        return f"{MARK}{number}".upper() if kind == "CS" else f"{MARK}{number}"
    if kind in PLAIN:
        value = PLAIN[kind](number)
        return [value, value] if dictionary_VM(tag_for_keyword(keyword)).startswith("2") else value
    return marked("bytes", number).encode().ljust(20) if kind in ("OB", "OW", "UN") else None


def found_in(content, marks):
    """Those of the marks that some bytes hold, as they are, compressed, packed or encoded, to any depth."""
    forms = {mark: (mark.lower().encode(), mark.lower().encode("utf-16-le")) for mark in marks}
    found = set()
    for piece in _unpacked(content):
        low = piece.lower()
        found |= {mark for mark, (narrow, wide) in forms.items() if narrow in low or wide in low}
    return found


def leaks(folder, marks, spared=()):
    """Files below a folder, by their paths within it, that hold a mark in their content or their name."""
    found, known = {}, {}
    for path in sorted(folder.rglob("*")):
        if any(path == one or one in path.parents for one in spared):
            continue
        name = str(path.relative_to(folder))
        content = path.read_bytes() if path.is_file() else b""
        digest = sha256(content).digest()  # much is there twice: beside a run, and in its store
        known[digest] = known[digest] if digest in known else found_in(content, marks)
        held = found_in(name.encode(), marks) | known[digest]
        if held:
            found[name] = sorted(held)[:5]
    return found


def _unpacked(content, depth=0):
    """A file's bytes, and what they hold."""
    yield content
    if depth > 3:
        return
    for piece in (*_streams(content), *_members(content), *_texts_of_picture(content), *_packed(content)):
        yield from _unpacked(piece, depth + 1)


def _streams(content):
    openers = {b"\x1f\x8b": gzip.decompress, b"\x28\xb5\x2f\xfd": Zstd().decode, b"\x78\x9c": zlib.decompress}
    opener = next((one for head, one in openers.items() if content.startswith(head)), None)
    if opener is None and content[:1] == b"\x02" and len(content) > 16:
        opener = Blosc().decode
    if opener is not None:
        try:
            yield bytes(opener(content))
        except Exception:  # no such stream after all
            return


def _members(content):
    if content.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield from (archive.read(name) for name in archive.namelist())


def _texts_of_picture(content):
    if content.startswith((b"\x89PNG", b"\xff\xd8", b"GIF8")):
        try:
            with Image.open(io.BytesIO(content)) as picture:
                yield repr(picture.info).encode()
        except (UnidentifiedImageError, OSError):
            return


def _packed(content):
    for text in re.findall(rb"[A-Za-z0-9+/]{40,}={0,2}", content):
        try:
            yield base64.b64decode(text, validate=True)
        except binascii.Error:
            continue
