"""What a model's labels are as the segments of a DICOM SEG."""

from __future__ import annotations

from pathlib import Path

import medseg
from medseg.datasets.labels import Labels
from medseg.errors import OutputError
from medseg.package import ModelCard
from medseg.scans.dicom_seg_sink import series_of
from medseg.scans.protocol import Scan
from medseg.scans.segments import Segment, Segmentation, SegmentLook


def segmentation_of(card: ModelCard, flags: bool = False) -> Segmentation:
    """A model's labels or regions with their codes and colours, and what made them.

    A region has every value that a mask can show inside it; the probabilities of a softmax network begin with the
    background's.

    Args:
        card: the model's.
        flags: the mask holds a bit for each region, see :class:`~medseg.inference.decode.Decoder`.
    """
    labels = card.label_map
    first = 1 if card.activation == "softmax" else 0
    of = len(labels.targets)
    segments = []
    for channel, (name, classes) in enumerate(labels.targets.items()):
        values = _flagged(channel, of) if flags else _values(labels, classes)
        segments.append(Segment(name, values, first + channel, card.segments.get(name) or SegmentLook()))
    algorithm = f"medseg {card.network.get('name', '')}".strip()
    return Segmentation(tuple(segments), algorithm, medseg.__version__, card.weights_sha256)


def _flagged(bit: int, of: int) -> tuple[int, ...]:
    return tuple(value for value in range(2**of) if value >> bit & 1)


def _values(labels: Labels, classes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(labels.file_values[number]) for number in classes)


def check_seg(like: Scan, output: Path, numbers: bool, precision: str | None) -> None:
    """Refuses, before anything is computed, what no DICOM SEG can be written for.

    Args:
        like: the grid of the mask.
        output: its final name.
        numbers: whether it holds instances.
        precision: of probabilities, or None.

    Raises:
        OutputError: saying what to do instead.
    """
    series_of(like, output)
    if numbers:
        raise OutputError(f"{output}: a DICOM SEG has named segments and no numbered objects: give --format nii.gz")
    if precision not in (None, "uint8"):
        raise OutputError(f"{output}: a DICOM SEG holds probabilities as bytes: give --probability-type uint8")
