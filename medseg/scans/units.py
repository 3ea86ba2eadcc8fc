"""Units of length: what files call them, and how long they are."""

from __future__ import annotations

MILLIMETRES = {
    "m": 1000.0,
    "cm": 10.0,
    "mm": 1.0,
    "um": 1e-3,
    "nm": 1e-6,
    "angstrom": 1e-7,
    "inch": 25.4,
    "pixel": 1.0,
}
"""Millimetres in each unit that medseg names; a pixel, whose size nobody knows, counts as one."""

LONG_NAMES = {
    "m": "meter",
    "cm": "centimeter",
    "mm": "millimeter",
    "um": "micrometer",
    "nm": "nanometer",
    "angstrom": "angstrom",
    "inch": "inch",
}
"""The names that OME-Zarr (UDUNITS-2) uses."""

_ALIASES = {
    "metre": "m",
    "centimetre": "cm",
    "millimetre": "mm",
    "micrometre": "um",
    "micron": "um",
    "microns": "um",
    "µm": "um",
    "μm": "um",
    "\\u00b5m": "um",
    "nanometre": "nm",
    "å": "angstrom",
    "in": "inch",
    **{long: short for short, long in LONG_NAMES.items()},
}


def short_unit(word: str | None) -> str | None:
    """The unit by medseg's name for it, or None for a word that names no length."""
    key = (word or "").strip().lower()
    key = _ALIASES.get(key, key)
    return key if key in MILLIMETRES and key != "pixel" else None
