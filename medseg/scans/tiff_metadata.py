"""What TIFF files state about spacing, each kind in its own way, and medseg's note in them."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

from medseg.scans import note as notes
from medseg.scans.units import MILLIMETRES, short_unit

FINEST_PRINT_MM = 0.02
"""Resolution tags that are no finer are a printer's or a screen's."""

Spacing = tuple[tuple[float, float, float], str]
"""((z, y, x), unit)"""

NOTHING: Spacing = ((1.0, 1.0, 1.0), "pixel")


def stated_spacing(file: Any, page: Any) -> Spacing:
    """The spacing that an open TIFF states, and its unit; ones and «pixel» where it states none."""
    if file.is_ome:
        found = _ome(file.ome_metadata)
    elif file.is_imagej:
        found = _imagej(file.imagej_metadata, page)
    elif file.is_svs:
        found = _aperio(page)
    else:
        found = _tags(page)
    if found is None or not all(0 < s < float("inf") for s in found[0]):
        return NOTHING
    return found


def note_in(file: Any) -> Any:
    """The note that a sink left: in the JSON description, or as an annotation of the OME-XML."""
    if not file.is_ome:
        return notes.loads(file.pages.first.description)
    for element in _elements(file.ome_metadata, "CommentAnnotation"):
        if element.get("Namespace") == notes.KEY:
            for value in element:
                return notes.loads(value.text or "")
    return None


def _ome(xml: str) -> Spacing | None:
    for pixels in _elements(xml, "Pixels"):
        sizes, units = [], []
        for axis in "ZYX":
            size = pixels.get(f"PhysicalSize{axis}")
            sizes.append(float(size) if size else None)
            units.append(short_unit(pixels.get(f"PhysicalSize{axis}Unit", "µm")))
        if sizes[1] is None or sizes[2] is None or None in (units[1], units[2]):
            return None
        return _in_one_unit([s or 1.0 for s in sizes], [u or units[2] for u in units])
    return None


def _elements(xml: str, tag: str) -> list[ElementTree.Element]:
    """The elements of a name, whatever their namespace; none in broken XML or one that defines entities."""
    if "<!ENTITY" in xml:
        return []
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return []
    return [element for element in root.iter() if element.tag.rpartition("}")[2] == tag]


def _in_one_unit(sizes: list[float], units: list[str | None]) -> Spacing:
    """As stated where the units agree, else in millimetres."""
    words = [u or "um" for u in units]
    if len(set(words)) == 1:
        return (sizes[0], sizes[1], sizes[2]), words[0]
    z, y, x = (s * MILLIMETRES[u] for s, u in zip(sizes, words, strict=True))
    return (z, y, x), "mm"


def _imagej(metadata: dict[str, Any] | None, page: Any) -> Spacing | None:
    metadata = metadata or {}
    unit = short_unit(str(metadata.get("unit", "")))
    per_unit = _resolution(page)
    if unit is None or per_unit is None:
        return None
    y, x = 1 / per_unit[0], 1 / per_unit[1]
    if unit == "inch" and not _is_fine(y, x, unit):
        return None
    return (abs(float(metadata.get("spacing", 1.0))) or 1.0, y, x), unit


def _aperio(page: Any) -> Spacing | None:
    stated = re.search(r"\|\s*MPP\s*=\s*([0-9.]+)", page.description)
    return ((1.0, float(stated[1]), float(stated[1])), "um") if stated else None


def _tags(page: Any) -> Spacing | None:
    unit = {2: "inch", 3: "cm"}.get(int(page.tags.valueof("ResolutionUnit", 1)))
    per_unit = _resolution(page)
    if unit is None or per_unit is None:
        return None
    y, x = 1 / per_unit[0], 1 / per_unit[1]
    return ((1.0, y, x), unit) if _is_fine(y, x, unit) else None


def _is_fine(y: float, x: float, unit: str) -> bool:
    return max(y, x) * MILLIMETRES[unit] < FINEST_PRINT_MM


def _resolution(page: Any) -> tuple[float, float] | None:
    """(y, x) pixels a unit."""
    values = []
    for tag in ("YResolution", "XResolution"):
        above, below = page.tags.valueof(tag, (0, 1))
        values.append(above / below if below else 0.0)
    return (values[0], values[1]) if min(values) > 0 else None
