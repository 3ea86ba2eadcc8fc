"""A DICOM header's values, parsed strictly, and only those that are asked for.

pydicom finds the elements; their bytes are parsed here, by the grammar of PS3.5 section 6.2, since Python's own
``float`` takes more than DICOM allows («1_000», «inf»), and pydicom's conversions quote values in their warnings.
No complaint quotes a value: what stands where a number should be may be a name.
"""

from __future__ import annotations

import logging
import re
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medseg.errors import ScanError

DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""A decimal string (DS). Its 16 bytes at most are exceeded by many programs, which harms nobody."""

INTEGER = re.compile(r"[+-]?\d{1,12}", re.ASCII)
"""An integer string (IS)."""

BINARY = {
    "US": "H",
    "SS": "h",
    "UL": "I",
    "SL": "i",
    "FL": "f",
    "FD": "d",
}
"""What ``struct`` calls the binary numbers."""

for _name in ("pydicom", "pylibjpeg", "openjpeg", "libjpeg"):
    # What they say of a header quotes it.
    logging.getLogger(_name).addFilter(logging.Filter("medseg.none"))
    warnings.filterwarnings("ignore", module=rf"{_name}(\.|$)")


@dataclass(frozen=True)
class Attributes:
    """The elements of a data set or of a sequence's item, by keyword.

    Attributes:
        name: what complaints call the file.
        elements: pydicom's data set.
    """

    name: str
    elements: Any

    def __contains__(self, keyword: str) -> bool:
        return self._raw(keyword) is not None

    def decimals(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """So many numbers (DS, or binary ones), or None where the element is absent or empty.

        Raises:
            ScanError: where they are others than so many, or are no numbers.
        """
        return self._numbers(keyword, count, DECIMAL)

    def decimal(self, keyword: str) -> float | None:
        """One number."""
        found = self.decimals(keyword, 1)
        return None if found is None else found[0]

    def integer(self, keyword: str) -> int | None:
        """One whole number (IS, US, UL ...), or None where the element is absent or empty.

        Raises:
            ScanError: where it is none.
        """
        found = self._numbers(keyword, 1, INTEGER)
        return None if found is None else int(found[0])

    def needed(self, keyword: str) -> int:
        """One whole number that has to be there.

        Raises:
            ScanError: where it is not.
        """
        found = self.integer(keyword)
        if found is None:
            raise ScanError(f"{self.name}: lacks {keyword}, without which its pixels cannot be read")
        return found

    def words(self, keyword: str) -> tuple[str, ...]:
        """The values of a text element, () where it is absent; what cannot be printed is a space."""
        element = self._raw(keyword)
        if element is None:
            return ()
        if not isinstance(element.value, bytes):
            return (str(element.value),)
        text = _decoded(element.value, self.elements)
        printable = "".join(c if c.isprintable() else " " for c in text)
        return tuple(part.strip() for part in printable.split("\\"))

    def word(self, keyword: str) -> str:
        """The first value of a text element, «» where it is absent."""
        return next(iter(self.words(keyword)), "")

    def numbers_as_words(self, keyword: str) -> tuple[str, ...]:
        """The values of any element as text, binary numbers written out; () where it is absent or of an odd length."""
        element = self._raw(keyword)
        code = None if element is None else BINARY.get(_vr(element, keyword))
        if element is None or code is None or not isinstance(element.value, bytes):
            return self.words(keyword)
        size = struct.calcsize(code)
        return tuple(f"{x:g}" for x in _unpacked(element, code)) if len(element.value) % size == 0 else ()

    def items(self, keyword: str) -> Sequence[Attributes]:
        """The items of a sequence, none where it is absent."""
        from pydicom.datadict import tag_for_keyword

        tag = tag_for_keyword(keyword)
        if tag not in self.elements:
            return ()
        found = self.elements[tag].value
        return [Attributes(self.name, item) for item in found or ()]

    def _numbers(self, keyword: str, count: int, grammar: re.Pattern[str]) -> tuple[float, ...] | None:
        element = self._raw(keyword)
        if element is None:
            return None
        if not isinstance(element.value, bytes):  # pydicom has unpacked it for its own needs
            return self._checked(str(element.value).split("\\"), keyword, count, grammar)
        code = BINARY.get(_vr(element, keyword))
        if code is not None:
            if len(element.value) != count * struct.calcsize(code):
                raise self._complaint(keyword, count)
            return _unpacked(element, code)
        parts = element.value.decode("latin-1").strip(" \0").split("\\")
        if parts == [""]:
            return None
        return self._checked([part.strip(" ") for part in parts], keyword, count, grammar)

    def _checked(self, parts: Sequence[str], keyword: str, count: int, grammar: re.Pattern[str]) -> tuple[float, ...]:
        if len(parts) != count or not all(map(grammar.fullmatch, parts)):
            raise self._complaint(keyword, count)
        return tuple(float(part) for part in parts)

    def _complaint(self, keyword: str, count: int) -> ScanError:
        what = "a number" if count == 1 else f"{count} numbers"
        return ScanError(f"{self.name}: its {keyword} is not {what} as DICOM writes them; mend the header")

    def _raw(self, keyword: str) -> Any:
        """The element with its bytes as value; None where it is absent or empty."""
        from pydicom.datadict import tag_for_keyword

        tag = tag_for_keyword(keyword)
        if tag not in self.elements:
            return None
        element = self.elements.get_item(tag)
        return element if element.value not in (None, b"", "") else None


def _vr(element: Any, keyword: str) -> str:
    """An element's own type, or the dictionary's where the file states none or an unknown one."""
    from pydicom.datadict import dictionary_VR

    return str(dictionary_VR(keyword) if element.VR in (None, "UN") else element.VR)


def _unpacked(element: Any, code: str) -> tuple[float, ...]:
    count = len(element.value) // struct.calcsize(code)
    return struct.unpack(("<" if element.is_little_endian else ">") + str(count) + code, element.value)


def _decoded(value: bytes, elements: Any) -> str:
    from pydicom.charset import convert_encodings, decode_bytes

    try:
        said = elements.get_item("SpecificCharacterSet")
        names = said.value.decode("ascii").strip(" \0").split("\\") if said is not None else []
        return str(decode_bytes(value, convert_encodings(names), set()))
    except Exception:  # a description that cannot be read is no reason not to read the image
        return value.decode("latin-1")
