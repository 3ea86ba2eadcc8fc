"""What each family of metrics finds in a case, by label and metric."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from medseg.datasets.labels import one_channel
from medseg.errors import MedsegError
from medseg.evaluation.calibration import calibration_of
from medseg.evaluation.catalogue import Family
from medseg.evaluation.connectomics import THIN_VOXELS, Segments, segments_of, thinned
from medseg.evaluation.detection import InstanceScores, lesions
from medseg.evaluation.metrics import Counts
from medseg.evaluation.overlaps import Components, Numbering, Numbers, slabs, tally
from medseg.evaluation.pair import Lengths, Pair
from medseg.evaluation.surfaces import Borders, SurfaceDistances
from medseg.geometry import Box
from medseg.scans.lattice import diagonal
from medseg.scans.scan import Scan

Values = dict[str, float]
"""By metric, or by column."""


def counted(counts: Counts, number: int, lengths: Lengths) -> Values:
    """The counted metrics of class 1..K, and the signed difference of volumes."""
    more = counts.predicted_voxels(number) - counts.reference_voxels(number)
    return {**vars(counts.scores(number)), "volume_difference": more * lengths.voxel}


def measure_surfaces(pair: Pair, borders: Borders, values: dict[str, Values]) -> None:
    """Adds the distances between borders."""
    found = borders.distances(pair.lengths.steps)
    worst = diagonal(pair.reference.shape, pair.lengths.steps)
    for number, label in pair.numbered:
        tolerance = pair.options.tolerance.get(label, math.nan)
        values[label] |= _distances(found.get(number), borders.sizes(number), worst, tolerance)


def _distances(found: SurfaceDistances | None, sizes: tuple[int, int], worst: float, tolerance: float) -> Values:
    unknown = math.isnan(tolerance)
    if found is None:
        nsd = math.nan if unknown else float(not any(sizes))
        return dict.fromkeys(("hd", "hd95", "assd"), worst if any(sizes) else 0.0) | {"nsd": nsd}
    nsd = math.nan if unknown else found.within(tolerance)
    return {"hd": found.hausdorff(), "hd95": found.hausdorff(0.95), "assd": found.mean, "nsd": nsd}


def _lesions(pair: Pair, values: dict[str, Values]) -> None:
    axes = len(pair.reference.shape)
    for number, label in pair.numbered:
        theirs, ours = Components(axes, diagonal=True), Components(axes, diagonal=True)
        found, dice = lesions(tally(pair.reference, pair.class_slabs(number), theirs, ours), pair.options.overlap)
        values[label] |= {
            "lesion_f1": found.f1,
            "lesion_sensitivity": found.sensitivity,
            "lesion_precision": found.precision,
            "lesion_dice": dice,
            "lesions_tp": found.tp,
            "lesions_fp": found.fp,
            "lesions_fn": found.fn,
        }


def _segments(pair: Pair, values: dict[str, Values]) -> None:
    axes = len(pair.reference.shape)
    for number, label in pair.numbered:
        read = pair.class_slabs(number) if pair.options.objects else pair.rest_slabs(number)
        theirs, ours = Components(axes, diagonal=False), Components(axes, diagonal=False)
        values[label] |= _segment_values(Segments.of(tally(pair.reference, read, theirs, ours)), "")


def _thin(pair: Pair, values: dict[str, Values]) -> None:
    if math.prod(pair.reference.shape) > THIN_VOXELS:
        raise MedsegError(
            f"{pair.reference.name} has {math.prod(pair.reference.shape)} voxels, and borders are thinned in scans of "
            f"up to {THIN_VOXELS}: ask for v_rand and v_info, which take scans of any size"
        )
    for number, label in pair.numbered:
        read = pair.class_slabs(number) if pair.options.objects else pair.rest_slabs(number)
        truth, found = read(Box.of(pair.reference.shape))
        values[label] |= _segment_values(segments_of(thinned(~found), ~truth), "_thin")


def _segment_values(segments: Segments, kind: str) -> Values:
    scores = {f"v_rand{kind}": segments.rand, f"v_info{kind}": segments.info}
    parts = {name + part: value for name, s in scores.items() for part, value in (("", s.f), ("_split", s.split))}
    return parts | {f"{name}_merge": s.merge for name, s in scores.items()}


def _instances(pair: Pair, values: dict[str, Values]) -> None:
    numberings = (_numbering(pair.reference, pair.options.numbered), _numbering(pair.prediction, False))

    def read(box: Box) -> tuple[NDArray, NDArray]:
        ignored = pair.labels.read(pair.reference, box) < 0
        raw = (one_channel(scan.read(box), scan.name) for scan in (pair.reference, pair.prediction))
        masked = (np.where(ignored, 0, values.astype(np.int64)) for values in raw)
        both = tuple(v if isinstance(n, Numbers) else v != 0 for v, n in zip(masked, numberings, strict=True))
        return both[0], both[1]

    found = InstanceScores.of(tally(pair.reference, read, *numberings))
    half = found.found[0]
    (_, label), *_ = pair.numbered
    values[label] |= {
        "ap": found.ap,
        "ap50": found.ap_at(50),
        "ap75": found.ap_at(75),
        "pq": found.pq,
        "sq": found.sq,
        "rq": found.rq,
        "instances_tp": half.tp,
        "instances_fp": half.fp,
        "instances_fn": half.fn,
    }


def _numbering(scan: Scan, numbers: bool) -> Numbering:
    """A file with one value beside 0 is a mask, whose components are its instances; others hold instance numbers."""
    seen: set[int] = set()
    for box in slabs(scan) if not numbers else ():
        seen.update(int(value) for value in np.unique(one_channel(scan.read(box), scan.name)) if value != 0)
        if len(seen) > 1:
            return Numbers()
    return Numbers() if numbers else Components(len(scan.shape), diagonal=False)


def calibrate(pair: Pair, probabilities: Scan, values: dict[str, Values], whole: Values) -> None:
    """Adds how far probabilities can be trusted, of each label and of the case."""
    found = calibration_of(probabilities, pair.reference, pair.labels)
    for (_, label), part in zip(pair.numbered, found.classes, strict=True):
        values[label] |= {"ece": part.ece, "brier": part.brier}
    if found.top is not None:
        whole |= {"case_ece": found.top.ece, "case_brier": found.brier}


_Add = Callable[[Pair, dict[str, Values]], None]
FAMILIES: dict[Family, _Add] = {
    "lesions": _lesions,
    "segments": _segments,
    "thin": _thin,
    "instances": _instances,
}
"""Those that need nothing but the pair."""

NUMBERS: dict[Family, tuple[str, ...]] = {
    "lesions": ("lesions_tp", "lesions_fp", "lesions_fn"),
    "instances": ("instances_tp", "instances_fp", "instances_fn"),
}
"""Columns that are counts: kept for each case, and not averaged."""
