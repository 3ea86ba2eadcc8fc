"""The metrics by name: what they need, in which unit they are, and what is good.

docs/metrics.md defines each: formula, unit, edge cases, source.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from medseg.errors import MedsegError, nearest

Family = Literal["counts", "surfaces", "lesions", "segments", "thin", "instances", "calibration"]
Unit = Literal["", "length", "volume"]
Better = Literal["higher", "lower", "zero"]


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: as options and columns call it.
        family: what is computed together.
        better: which way is good; «zero» is for signed values.
        unit: what its column ends with: nothing, a length (mm), or a volume (mm3; mm2 in two axes).
        missing: the value of a case without a prediction; None for the scan's diagonal.
    """

    name: str
    family: Family
    better: Better = "higher"
    unit: Unit = ""
    missing: float | None = 0.0

    def column(self, unit: str, axes: int) -> str:
        """The name of its column, such as ``hd95_mm``.

        Args:
            unit: of lengths: «mm», «um», «nm», or «voxels» where none is known.
            axes: 2 or 3.
        """
        if self.unit == "length" or (self.unit == "volume" and unit == "voxels"):
            return f"{self.name}_{unit}"
        return f"{self.name}_{unit}{axes}" if self.unit == "volume" else self.name


NAN = float("nan")
_TABLE = (
    Metric("dice", "counts"),
    Metric("iou", "counts"),
    Metric("sensitivity", "counts"),
    Metric("precision", "counts", missing=NAN),
    Metric("specificity", "counts"),
    Metric("volume_similarity", "counts"),
    Metric("volume_difference", "counts", "zero", "volume", NAN),
    Metric("pixel_error", "counts", "lower", missing=1.0),
    Metric("hd", "surfaces", "lower", "length", None),
    Metric("hd95", "surfaces", "lower", "length", None),
    Metric("assd", "surfaces", "lower", "length", None),
    Metric("nsd", "surfaces"),
    Metric("lesion_f1", "lesions"),
    Metric("lesion_sensitivity", "lesions"),
    Metric("lesion_precision", "lesions", missing=NAN),
    Metric("lesion_dice", "lesions"),
    Metric("v_rand", "segments"),
    Metric("v_rand_split", "segments"),
    Metric("v_rand_merge", "segments"),
    Metric("v_info", "segments"),
    Metric("v_info_split", "segments"),
    Metric("v_info_merge", "segments"),
    Metric("v_rand_thin", "thin"),
    Metric("v_rand_thin_split", "thin"),
    Metric("v_rand_thin_merge", "thin"),
    Metric("v_info_thin", "thin"),
    Metric("v_info_thin_split", "thin"),
    Metric("v_info_thin_merge", "thin"),
    Metric("ap", "instances"),
    Metric("ap50", "instances"),
    Metric("ap75", "instances"),
    Metric("pq", "instances"),
    Metric("sq", "instances", missing=NAN),
    Metric("rq", "instances"),
    Metric("ece", "calibration", "lower", missing=NAN),
    Metric("brier", "calibration", "lower", missing=NAN),
)
METRICS = {metric.name: metric for metric in _TABLE}
FAMILIES = tuple(dict.fromkeys(metric.family for metric in _TABLE))
COUNTED = tuple(metric.name for metric in _TABLE if metric.family == "counts")
DEFAULT = (*COUNTED, "hd95", "assd")
"""What is computed unasked; a tolerance adds nsd, and so do options their families."""


def of_family(*families: Family) -> tuple[str, ...]:
    """The names of all metrics of these families."""
    return tuple(metric.name for metric in _TABLE if metric.family in families)


def choose(wanted: Sequence[str] | None, extra: Iterable[Family], tolerance: bool) -> tuple[Metric, ...]:
    """The metrics to compute, in the catalogue's order.

    Args:
        wanted: names of metrics and families; None for :data:`DEFAULT`, and all of ``extra``.
        extra: families that the other options ask for.
        tolerance: whether a tolerance is known, as nsd needs one.

    Raises:
        MedsegError: for a name that is none, or nsd without a tolerance.
    """
    names: set[str] = set()
    for word in wanted if wanted is not None else (*DEFAULT, *extra, *(["nsd"] if tolerance else [])):
        if word not in METRICS and word not in FAMILIES:
            known = (*METRICS, *FAMILIES)
            raise MedsegError(
                f"no metric is called {word!r}{nearest(word, known)}; the families are {', '.join(FAMILIES)}, and "
                "docs/metrics.md names all metrics"
            )
        names |= {word} if word in METRICS else {m.name for m in _TABLE if m.family == word and _possible(m, tolerance)}
    if "nsd" in names and not tolerance:
        raise MedsegError(
            "nsd needs a tolerance, the deviation that experts would accept: --tolerance 2, or one for each label, "
            "--tolerance liver=3,tumor=2 (in mm; in voxels where the scans state no unit)"
        )
    return tuple(metric for metric in _TABLE if metric.name in names)


def _possible(metric: Metric, tolerance: bool) -> bool:
    return metric.name != "nsd" or tolerance
