"""The header of NRRD: .nrrd with its voxels behind it or in a data file, .nhdr with a data file.

    space                        RAS, LAS and LPS are a patient's. In any other (scanner-xyz, 3D-right-handed, only a
                                 space dimension) the directions are taken for LPS, as ITK takes them, and the file does
                                 not say how the patient lies. An unknown word, or a space with time, is refused.
    no space directions          the axes are the world's, their spacings as stated, else 1 pixel; nothing is said of
                                 the patient.
    units                        «space units», else «units», else millimetres (pixels where no spacing is stated)
    kinds                        an axis of a list, vector or colour kind, or without a direction, is the channels;
                                 there may be one longer than 1

The measurement frame is about what vectors mean, not about where voxels lie: it is not read.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medseg.errors import ScanError
from medseg.scans.header import Header
from medseg.scans.itk_header import HEADER_BYTES, LPS, Stored, Text, affine_of, beside
from medseg.scans.raw import RawArray
from medseg.scans.units import MILLIMETRES, short_unit

TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"), "i8"),
    "signed long long int": "i8",
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}

ENCODINGS = {"raw": "", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}

PATIENTS = {
    **dict.fromkeys(("right-anterior-superior", "ras"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("left-anterior-superior", "las"), (-1.0, 1.0, 1.0)),
    **dict.fromkeys(("left-posterior-superior", "lps"), LPS),
}
"""The spaces that say how a patient lies, and the signs that turn them to RAS+."""

OTHERS = ("", "scanner-xyz", "3d-right-handed", "3d-left-handed")

SPATIAL = ("domain", "space", "none", "???")
CHANNELS = ("list", "vector", "point", "scalar", "stub", "covariant-vector", "normal", "quaternion")
COUNTED = re.compile(
    r"(rgb|rgba|hsv|xyz)-color|[234]-(color|vector|gradient|normal)|[23]d-(masked-)?(symmetric-)?matrix"
)
"""Kinds of an axis that is space, and of one that is channels."""

VECTOR = re.compile(r"none|\([^()]*\)")


def parse(path: Path, name: str) -> Stored:
    """Reads the header.

    Raises:
        ScanError: where it is no NRRD header, or of what is no image of two or three axes.
    """
    text = _text(path, name)
    dims = text.number("dimension", 0)
    if dims < 2:
        raise ScanError(f"{name}: has {dims} axes; an image has two or three")
    sizes = text.integers("sizes", dims)
    vectors = _directions(text, dims)
    spatial = _spatial(text, sizes, vectors)
    rest = [n for n in range(dims) if n not in spatial and sizes[n] != 1]
    letters = {n: "XYZ"[k] for k, n in enumerate(spatial)} | dict.fromkeys(rest, "C")
    kept = sorted(letters, reverse=True)
    dtype = _dtype(text)
    affine, unit, anatomical = _geometry(text, spatial, vectors)
    shape = tuple(sizes[n] for n in spatial)
    channels = sizes[rest[0]] if rest else 1
    header = Header(name, shape, channels, dtype, "XYZ"[: len(shape)], affine, unit, anatomical)
    layout = RawArray(tuple(sizes[n] for n in kept), dtype)
    return _placed(path, text, header, "".join(letters[n] for n in kept), layout)


def _text(path: Path, name: str) -> Text:
    """The fields up to the first empty line."""
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if not head.startswith(b"NRRD"):
        raise ScanError(f"{name}: is no NRRD header: it does not begin with NRRD")
    blank = re.search(rb"\r?\n\r?\n", head)
    if blank is None and len(head) == HEADER_BYTES:
        raise ScanError(f"{name}: is no NRRD header: no empty line ends it")
    fields: dict[str, str] = {}
    for line in head[: blank.start() if blank else None].decode("utf-8", "surrogateescape").splitlines()[1:]:
        key, colon, value = line.partition(":")
        if colon and not line.startswith("#") and not value.startswith("="):
            fields[key.replace(" ", "").lower()] = value.strip()
    return Text(name, fields, blank.end() if blank else len(head))


def _dtype(text: Text) -> np.dtype:
    word = " ".join(text.fields.get("type", "").lower().split())
    if word not in TYPES:
        raise ScanError(f"{text.name}: its type «{word[:40]}» is unknown; an image has integers, float or double")
    dtype = np.dtype(TYPES[word])
    endian = text.fields.get("endian", "little" if dtype.itemsize == 1 else "").lower()
    if endian not in ("little", "big"):
        raise ScanError(f"{text.name}: does not say its endian, little or big; mend the header")
    return dtype.newbyteorder(">" if endian == "big" else "<")


def _directions(text: Text, dims: int) -> list[NDArray[np.float64] | None] | None:
    """Each axis's direction times its spacing, in the space's units; None for an axis without one, or for all."""
    if "spacedirections" not in text.fields:
        return None
    words = VECTOR.findall(text.fields["spacedirections"])
    vectors = [None if word == "none" else _vector(text, word) for word in words]
    if len(vectors) != dims or len({len(v) for v in vectors if v is not None}) != 1:
        raise ScanError(f"{text.name}: its «space directions» are not {dims} vectors of one length; mend the header")
    return vectors


def _vector(text: Text, word: str) -> NDArray[np.float64]:
    try:
        return np.array([float(n) for n in word.strip("()").split(",")])
    except ValueError:
        raise ScanError(f"{text.name}: one of its vectors is not made of numbers; mend the header") from None


def _spatial(text: Text, sizes: list[int], vectors: list[NDArray[np.float64] | None] | None) -> list[int]:
    """The axes that are space."""
    kinds = text.fields.get("kinds", "??? " * len(sizes)).lower().split()
    if len(kinds) != len(sizes):
        raise ScanError(f"{text.name}: its «kinds» are not {len(sizes)}; mend the header")
    for kind, size in zip(kinds, sizes, strict=True):
        if kind == "time" and size > 1:
            raise ScanError(f"{text.name}: holds {size} points in time; store each as an image of its own")
        if kind not in (*SPATIAL, *CHANNELS, "time") and not COUNTED.fullmatch(kind):
            raise ScanError(f"{text.name}: holds an axis of kind «{kind[:40]}», which is no image's")
    spatial = [n for n, kind in enumerate(kinds) if kind in SPATIAL and (vectors is None or vectors[n] is not None)]
    longer = [n for n, size in enumerate(sizes) if n not in spatial and size != 1]
    if len(spatial) not in (2, 3) or len(longer) > 1:
        raise ScanError(
            f"{text.name}: its axes {tuple(sizes)} of kinds {' '.join(kinds)[:80]} are no image "
            "of two or three spatial axes and one of channels"
        )
    return spatial


def _geometry(
    text: Text, spatial: list[int], vectors: list[NDArray[np.float64] | None] | None
) -> tuple[NDArray[np.float64], str, bool]:
    """Affine, unit and whether it is a patient's."""
    space = text.fields.get("space", "").lower()
    if space not in PATIENTS and space not in OTHERS:
        raise ScanError(f"{text.name}: its space «{space[:40]}» is not known; use left-posterior-superior or its like")
    signs = PATIENTS.get(space, LPS)
    if vectors is None:
        columns, origin, unit = _undirected(text, spatial)
        return affine_of(columns, origin, signs), unit, False
    columns = np.stack([v for n in spatial if (v := vectors[n]) is not None], axis=1)
    if len(columns) not in (2, 3) or len(columns) < len(spatial):
        raise ScanError(f"{text.name}: its space has {len(columns)} dimensions; an image lies in two or three")
    origin = _vector(text, text.fields["spaceorigin"]) if "spaceorigin" in text.fields else np.zeros(len(columns))
    unit = _unit(text, "spaceunits") or "mm"
    affine = affine_of(columns * MILLIMETRES[unit], origin * MILLIMETRES[unit], signs)
    return affine, unit, space in PATIENTS and len(columns) == 3


def _undirected(text: Text, spatial: list[int]) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Columns, origin and unit where only spacings are stated, or not even those.

    «axis mins» are where the first voxel begins, or its centre where the samples are nodes.
    """
    dims = text.number("dimension", 0)
    stated = "spacings" in text.fields
    spacing = np.array(text.numbers("spacings", dims) if stated else [1.0] * dims)[spatial]
    if not (spacing > 0).all():
        raise ScanError(f"{text.name}: its spacings {tuple(map(float, spacing))} are not positive; mend the header")
    unit = _unit(text, "units") or ("mm" if stated else "pixel")
    origin = np.zeros(len(spatial))
    if stated and "axismins" in text.fields:
        centres = (text.fields.get("centers") or text.fields.get("centerings") or "??? " * dims).split()
        half = np.array([0.0 if word == "node" else 0.5 for word in centres])[spatial]
        origin = np.nan_to_num(np.array(text.numbers("axis mins", dims))[spatial] + half * spacing)
    return np.diag(spacing) * MILLIMETRES[unit], origin * MILLIMETRES[unit], unit


def _unit(text: Text, field: str) -> str | None:
    """The one unit of all axes that name one."""
    found = {short_unit(word) for word in re.findall(r'"([^"]*)"', text.fields.get(field, ""))} - {None}
    if len(found) > 1:
        raise ScanError(f"{text.name}: its axes are in several units ({', '.join(sorted(map(str, found)))})")
    return found.pop() if found else None


def _placed(path: Path, text: Text, header: Header, roles: str, layout: RawArray) -> Stored:
    """Where the voxels are: behind the header, or in the file that it names; lines and bytes are skipped there."""
    stated = text.fields.get("datafile")
    data = beside(path, text.name, stated) if stated is not None else path
    word = text.fields.get("encoding", "").lower()
    if word not in ENCODINGS:
        raise ScanError(f"{text.name}: its encoding «{word[:40]}» is not supported; use raw, gzip or bzip2")
    start = _after_lines(data, 0 if stated is not None else text.end, text.number("line skip", 0))
    skip = text.number("byte skip", 0)
    if ENCODINGS[word]:
        layout = RawArray(layout.shape, layout.dtype, max(skip, 0))
        return Stored(header, roles, layout, data, start, ENCODINGS[word])
    offset = data.stat().st_size - layout.nbytes if skip < 0 else start + skip
    return Stored(header, roles, RawArray(layout.shape, layout.dtype, offset), data)


def _after_lines(data: Path, start: int, lines: int) -> int:
    with data.open("rb") as file:
        file.seek(start)
        for _ in range(lines):
            if not file.readline(HEADER_BYTES):
                break
        return file.tell()
