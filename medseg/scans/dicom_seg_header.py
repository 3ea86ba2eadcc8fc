"""The header of a DICOM SEG (PS3.3 A.51, C.8.20), made by highdicom from the headers of its series.

highdicom wants the whole mask in memory. It is given a thumbnail instead, one pixel a frame, that says which frames
hold anything; size and pixels are put in afterwards, so that memory does not grow with the voxels.

Nothing in it is drawn: UIDs are digests of the series, the model and the mask, dates are the source's. So the same
input gives the same bytes.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.errors import OutputError
from medseg.scans.dicom import DicomScan
from medseg.scans.dicom_seg_sources import date_of, headers_of, stand_ins, uid_of
from medseg.scans.segments import Code, Segmentation, color_of, short_names

Kind = Literal["BINARY", "FRACTIONAL"]
SERIES_NUMBER = 1000
"""What a SEG's series number is above its source's."""
UTF_8 = "ISO_IR 192"


@dataclass(frozen=True)
class Contents:
    """What a mask holds, as far as the header needs it.

    Attributes:
        kind: of segmentation.
        filled: (frames, segments) where a segment has any voxel.
        digest: of the voxels.
        overlap: whether a voxel can belong to several segments.
    """

    kind: Kind
    filled: NDArray[np.bool_]
    digest: str
    overlap: bool


def make_header(scan: DicomScan, about: Segmentation, contents: Contents) -> tuple[Any, list[tuple[int, int]]]:
    """A SEG without its pixels, and (frame of the scan, segment from 0) of each frame that it is to hold, in order.

    Raises:
        OutputError: where the series cannot be referred to.
    """
    from pydicom.uid import ExplicitVRLittleEndian

    first, instances = headers_of(scan)
    sources = stand_ins(scan, first, instances)
    series = uid_of("series", first.SeriesInstanceUID, about.model, contents.kind)
    looks = [[segment.name, segment.look.model_dump()] for segment in about.segments]
    own = uid_of("instance", series, contents.digest, looks, about.version)
    date, time = date_of(first)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = _segmentation_class()(
            sources,
            contents.filled[:, None, None, :],
            contents.kind,
            _descriptions(about),
            series,
            _series_number(first),
            own,
            1,
            "medseg",
            about.algorithm,
            about.version,
            about.model[:64],
            content_label="SEGMENTATION",
            transfer_syntax_uid=ExplicitVRLittleEndian,
            series_description=f"{about.algorithm} ({contents.kind.lower()})",
            content_date=date,
            content_time=time,
            specific_character_set=UTF_8,
        )
    del found.PixelData
    _refer(found, scan, instances)
    _settle(found, scan, contents, first, own)
    shared = found.SharedFunctionalGroupsSequence[0]
    return found, [_place(item, shared, scan) for item in found.PerFrameFunctionalGroupsSequence]


def check_installed(name: str) -> None:
    """Refuses to write a SEG where highdicom is missing.

    Raises:
        OutputError: with what to install.
    """
    _segmentation_class(name)


def _segmentation_class(name: str = "the mask") -> Any:
    logging.getLogger("highdicom").setLevel(logging.CRITICAL + 1)  # what it says quotes headers
    try:
        from highdicom.seg import Segmentation as DicomSegmentation
    except ImportError:
        raise OutputError(f"{name}: writing DICOM SEG needs highdicom: pip install 'medseg[dicom]'") from None
    return DicomSegmentation


def _descriptions(about: Segmentation) -> list[Any]:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes

    algorithm = AlgorithmIdentificationSequence(about.algorithm, codes.DCM.ArtificialIntelligence, about.version)
    return [
        SegmentDescription(
            number,
            name,
            _concept(segment.category),
            _concept(segment.type),
            "AUTOMATIC",
            algorithm,
            display_color=CIELabColor.from_rgb(*color_of(segment, number)),
        )
        for number, (segment, name) in enumerate(zip(about.segments, short_names(about.segments), strict=True), 1)
    ]


def _concept(code: Code) -> Any:
    from pydicom.sr.coding import Code as DicomCode

    return DicomCode(code.value, code.scheme, code.meaning)


def _refer(found: Any, scan: DicomScan, instances: dict[Any, Any]) -> None:
    """Names the source's own files, classes and frames where stand-ins were named."""
    classes = {str(one.SOPInstanceUID): one.SOPClassUID for one in instances.values()}
    for holder, keyword in (
        *((series, "ReferencedInstanceSequence") for series in found.get("ReferencedSeriesSequence", ())),
        (found, "SourceImageSequence"),
    ):
        once = {str(item.ReferencedSOPInstanceUID): item for item in holder.get(keyword, ())}
        for uid, item in once.items():
            item.ReferencedSOPClassUID = classes[uid]
        if once:
            setattr(holder, keyword, list(once.values()))
    for item in found.PerFrameFunctionalGroupsSequence:
        number = scan.frames[_slice_of(item, scan)].number
        for derivation in item.get("DerivationImageSequence", ()):
            for source in derivation.SourceImageSequence:
                source.ReferencedSOPClassUID = classes[str(source.ReferencedSOPInstanceUID)]
                if len(scan.frames) > len(instances):
                    source.ReferencedFrameNumber = number + 1


def _settle(found: Any, scan: DicomScan, contents: Contents, first: Any, own: str) -> None:
    """The size of the frames, and what highdicom draws or takes from the clock."""
    when = date_of(first)
    earlier = {str(item.get("ContributionDateTime")) for item in first.get("ContributingEquipmentSequence", ())}
    pixels = scan.frames[0].pixels.format
    found.Rows, found.Columns = pixels.rows, pixels.columns
    found.SegmentsOverlap = "UNDEFINED" if contents.kind == "FRACTIONAL" else "YES" if contents.overlap else "NO"
    if not scan.anatomical:
        _settle_picture(found, first)
    found.InstanceCreationDate, found.InstanceCreationTime = when
    organization = uid_of("dimensions", own)
    for item in (*found.DimensionOrganizationSequence, *found.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
    for item in found.get("ContributingEquipmentSequence", ()):
        if str(item.get("ContributionDateTime")) not in earlier:
            item.ContributionDateTime = "".join(when)


def _settle_picture(found: Any, first: Any) -> None:
    """What a SEG without a frame of reference has instead; a spacing without a thickness is none to highdicom."""
    found.PatientOrientation = first.get("PatientOrientation") or ""
    shared = found.SharedFunctionalGroupsSequence[0]
    measures = shared.get("PixelMeasuresSequence")
    if measures and not all(keyword in measures[0] for keyword in ("PixelSpacing", "SliceThickness")):
        del shared.PixelMeasuresSequence


def _place(item: Any, shared: Any, scan: DicomScan) -> tuple[int, int]:
    """(frame of the scan, segment from 0) that an item of functional groups is about.

    A SEG of one segment says once, in the groups that its frames share, which that is.
    """
    own = item if "SegmentIdentificationSequence" in item else shared
    return _slice_of(item, scan), own.SegmentIdentificationSequence[0].ReferencedSegmentNumber - 1


def _slice_of(item: Any, scan: DicomScan) -> int:
    if "PlanePositionSequence" not in item:
        return 0
    position = np.array(item.PlanePositionSequence[0].ImagePositionPatient, np.float64)
    distances = [np.linalg.norm(position - frame.place[0]) for frame in scan.frames if frame.place is not None]
    return int(np.argmin(distances))


def _series_number(first: Any) -> int:
    text = str(first.get("SeriesNumber") or "")
    return SERIES_NUMBER + (int(text) if text.isdigit() and int(text) < 2**30 else 0)
