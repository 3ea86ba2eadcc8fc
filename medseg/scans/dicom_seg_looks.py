"""What a SEG says its segments are: codes and colours, for models that learn from it to say the same."""

from __future__ import annotations

from medseg.scans.dicom_seg import SegFile
from medseg.scans.dicom_values import Attributes
from medseg.scans.segments import SegmentLook


def look_of(seg: SegFile, number: int) -> SegmentLook:
    """A segment's look; what is not said, or not as the standard has it, is left out."""
    item = next(i for i in seg.instance.attributes.items("SegmentSequence") if i.integer("SegmentNumber") == number)
    given = {
        "code": _code(item, "SegmentedPropertyTypeCodeSequence"),
        "category": _code(item, "SegmentedPropertyCategoryCodeSequence"),
        "color": _color(item),
    }
    kept = {}
    for key, value in given.items():
        try:
            SegmentLook.model_validate({key: value})
            kept[key] = value
        except ValueError:
            continue
    return SegmentLook(**kept)


def _code(item: Attributes, sequence: str) -> str | None:
    code = next(iter(item.items(sequence)), None)
    if code is None:
        return None
    return " ".join(code.word(key) for key in ("CodingSchemeDesignator", "CodeValue", "CodeMeaning"))


def _color(item: Attributes) -> str | None:
    """CIELab as DICOM stores it (PS3.3 C.10.7.1.1) as sRGB."""
    stored = item.decimals("RecommendedDisplayCIELabValue", 3)
    if stored is None:
        return None
    from skimage.color import lab2rgb

    light, a, b = stored[0] / 65535 * 100, stored[1] / 65535 * 255 - 128, stored[2] / 65535 * 255 - 128
    return "#" + "".join(f"{round(255 * float(c)):02x}" for c in lab2rgb([light, a, b]))
