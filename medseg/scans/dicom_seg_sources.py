"""What a DICOM SEG takes over from the headers of its series, made fit for highdicom.

highdicom refuses sources for much that is common: a missing Type 2 attribute, an enhanced image whose spacing is said
frame by frame, an odd character set. It is given stand-ins: a single-frame image of one pixel for each frame of the
scan, with the source's own place, patient and study.
"""

from __future__ import annotations

import re
import uuid
from copy import deepcopy
from typing import Any

import numpy as np

from medseg.errors import OutputError
from medseg.files import digest_of
from medseg.scans.contents import opened
from medseg.scans.dicom import DicomScan
from medseg.scans.dicom_frames import Frame
from medseg.scans.dicom_values import DECIMAL

TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
"""What the standard wants in every object, empty where it is not known (PS3.3 C.7.1.1, C.7.2.1)."""
DATES = (
    ("ContentDate", "ContentTime"),
    ("AcquisitionDate", "AcquisitionTime"),
    ("SeriesDate", "SeriesTime"),
    ("StudyDate", "StudyTime"),
)
"""Where a source's date and time are looked for."""
NO_DATE = ("19700101", "000000")
"""What stands where the source has no date at all: the SEG must have one."""
PLACED, PICTURE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.7"
"""SOP classes that stand for the source's own while highdicom works, which refuses some for being what they are."""
_DATE = re.compile(r"\d{8}")
_TIME = re.compile(r"\d{2,6}(\.\d{1,6})?")
_FRAGMENTS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "NumberOfFrames")


def headers_of(scan: DicomScan) -> tuple[Any, dict[Any, Any]]:
    """The header of the first file, whole but for its pixels, and what every file is called."""
    from pydicom import dcmread

    instances: dict[Any, Any] = {}
    first = None
    tags: list[Any] = [
        "SOPClassUID",
        "SOPInstanceUID",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
    ]
    for pixels in dict.fromkeys(frame.pixels for frame in scan.frames):
        with opened(pixels.path, pixels.zipped) as file:
            wanted = None if first is None else tags
            instances[pixels] = dcmread(file, stop_before_pixels=True, specific_tags=wanted, force=True)
        if first is None:
            first = instances[pixels]
    if first is None or not all("SOPInstanceUID" in one and "SOPClassUID" in one for one in instances.values()):
        raise OutputError(f"{scan.name}: a file of the series lacks its SOPInstanceUID: a DICOM SEG cannot refer to it")
    return first, instances


def stand_ins(scan: DicomScan, first: Any, instances: dict[Any, Any]) -> list[Any]:
    """A single-frame image of one pixel for each frame of the scan, with all that highdicom copies or looks at."""
    from pydicom.dataset import Dataset

    study, series = first.get("StudyInstanceUID"), first.get("SeriesInstanceUID")
    first.SeriesInstanceUID = series or uid_of("source series", [str(one.SOPInstanceUID) for one in instances.values()])
    first.StudyInstanceUID = study or uid_of("study", first.SeriesInstanceUID)
    _fill_type_2(first)
    placed = scan.anatomical
    world = (first.get("FrameOfReferenceUID") or uid_of("world", first.SeriesInstanceUID)) if placed else None
    made = []
    for number, frame in enumerate(scan.frames):
        one = Dataset()
        if number == 0:
            one.update({e.tag: deepcopy(e) for e in first if e.keyword not in _FRAGMENTS})
        one.SOPClassUID = PLACED if placed else PICTURE
        one.SOPInstanceUID = instances[frame.pixels].SOPInstanceUID
        one.StudyInstanceUID, one.SeriesInstanceUID = first.StudyInstanceUID, first.SeriesInstanceUID
        one.Modality = first.get("Modality") or "OT"
        one.Rows = one.Columns = 1
        if "FrameOfReferenceUID" in one:
            del one.FrameOfReferenceUID
        if placed:
            one.FrameOfReferenceUID = world
            _put_place(one, frame, instances[frame.pixels], scan)
        made.append(one)
    return made


def _put_place(one: Any, frame: Frame, instance: Any, scan: DicomScan) -> None:
    """Where the frame lies: in the file's own digits where it says it at its top."""
    from pydicom.valuerep import DSfloat

    if frame.place is None:
        raise OutputError(f"{scan.name}: a slice does not say where it lies: no DICOM SEG can be written for it")
    position, directions, spacing = frame.place
    values = {
        "ImagePositionPatient": position,
        "ImageOrientationPatient": directions.ravel(),
        "PixelSpacing": np.array(spacing),
    }
    for keyword, numbers in values.items():
        own = instance.get(keyword)
        words = list(own) if own else [DSfloat(float(x), auto_format=True) for x in numbers]
        setattr(one, keyword, words)
    thickness = next(iter(frame.facts.get("SliceThickness", ())), "")
    if DECIMAL.fullmatch(thickness):
        one.SliceThickness = thickness
    else:
        step = float(np.linalg.norm(scan.affine[:3, 2]))
        one.SliceThickness = DSfloat(step, auto_format=True)


def _fill_type_2(first: Any) -> None:
    """Empty where there is nothing, or nothing that the standard allows; texts whatever bytes they were in."""
    first.decode()
    for keyword in TYPE_2:
        if keyword not in first:
            setattr(first, keyword, "")
    for keyword, allowed in (("PatientBirthDate", _DATE), ("StudyDate", _DATE), ("StudyTime", _TIME)):
        if not allowed.fullmatch(str(first.get(keyword) or "")):
            setattr(first, keyword, "")
    if first.PatientSex not in ("M", "F", "O"):
        first.PatientSex = ""
    for keyword in ("PatientName", "ReferringPhysicianName"):
        setattr(first, keyword, str(first[keyword].value))


def date_of(first: Any) -> tuple[str, str]:
    """The source's date and time: of its content, else of its acquisition, series or study."""
    for date, time in DATES:
        found = str(first.get(date) or "")
        if _DATE.fullmatch(found):
            clock = str(first.get(time) or "")
            return found, clock if _TIME.fullmatch(clock) else NO_DATE[1]
    return NO_DATE


def uid_of(*parts: Any) -> str:
    """A UID that is a digest of JSON values, in the form of a UUID (PS3.5 B.2)."""
    return f"2.25.{uuid.UUID(hex=digest_of(parts)[:32], version=5).int}"
