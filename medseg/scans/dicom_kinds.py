"""What a DICOM object is, by its SOP class (PS3.4 Annex B): an image, or something else that is told by its name."""

from __future__ import annotations

_STORAGE = "1.2.840.10008.5.1.4.1.1."

NO_IMAGES = {
    "1.2.840.10008.1.3.10": "a DICOMDIR, an index of other files: give their folder",
    _STORAGE + "66.4": "a segmentation (SEG), which holds labels",
    _STORAGE + "66.7": "a label map (SEG), which holds labels",
    _STORAGE + "66.5": "a surface segmentation",
    _STORAGE + "66.6": "a set of tracts",
    _STORAGE + "66": "raw data or a registration",
    _STORAGE + "67": "a mapping of real world values",
    _STORAGE + "68": "a surface scan",
    _STORAGE + "30": "a parametric map, which holds derived quantities: convert it to NIfTI",
    _STORAGE + "481.2": "a dose distribution (RTDOSE)",
    _STORAGE + "481.3": "a structure set (RTSTRUCT), which holds contours",
    _STORAGE + "481.4": "a treatment record",
    _STORAGE + "481.5": "a treatment plan (RTPLAN)",
    _STORAGE + "481.8": "a treatment plan (RTPLAN)",
    _STORAGE + "11": "a presentation state (PR)",
    _STORAGE + "88": "a structured report (SR)",
    _STORAGE + "104": "a document",
    _STORAGE + "9": "a waveform",
    _STORAGE + "77.1.6": "a whole-slide image: convert it to OME-TIFF",
    _STORAGE + "91.1": "a set of microscopy annotations",
}
"""What is no image, by the beginning of its SOP class; the longest beginning counts."""

QUANTITIES = ("CT", "MR", "PT", "NM")
"""Modalities whose values are measurements, whichever way round they are displayed."""


def no_image(sop_class: str) -> str | None:
    """What an object is that is no image medseg can segment, or None where it may be one.

    >>> no_image("1.2.840.10008.5.1.4.1.1.88.33"), no_image("1.2.840.10008.5.1.4.1.1.2")
    ('a structured report (SR)', None)
    """
    parts = sop_class.split(".")
    for length in range(len(parts), 0, -1):
        what = NO_IMAGES.get(".".join(parts[:length]))
        if what is not None:
            return what
    return None
