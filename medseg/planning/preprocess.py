"""Spacing and intensities: what every scan is brought to before the network sees it.

The rules are nnU-Net's (Isensee et al. 2021, Nature Methods 18, 203-211, Methods and Supplementary Note 2), but where
it is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medseg.planning.choice import Choice
from medseg.planning.evidence import Evidence

ANISOTROPIC = 3.0
"""From this ratio on, of spacings and of numbers of voxels, an axis is coarse (nnU-Net's ANISO_THRESHOLD)."""
COARSE_PERCENTILE = 10
"""Of its spacings, what a coarse axis is brought to."""
CLIP = (0.5, 99.5)
"""Percentiles of the foreground between which a CT is kept."""
DIGITS = 4
"""Significant digits of what is written."""


def coarse_axis(spacing_mm: Sequence[float], shape: Sequence[float]) -> int | None:
    """The axis along which voxels are :data:`ANISOTROPIC` times as long, and as few, as along every other."""
    worst = int(np.argmax(spacing_mm))
    others = [axis for axis in range(len(spacing_mm)) if axis != worst]
    long = spacing_mm[worst] > ANISOTROPIC * max(spacing_mm[axis] for axis in others)
    few = shape[worst] * ANISOTROPIC < min(shape[axis] for axis in others)
    return worst if long and few else None


def target_spacing(spacings: NDArray, shapes: NDArray) -> tuple[list[float], int | None]:
    """(cases, d) millimetres, (cases, d) voxels → the spacing to resample to, and the coarse axis or None.

    The median along each axis; along a coarse one the 10th percentile, and no less than along the others, so that its
    thin scans lose little and the thick ones are not made up.
    """
    median = np.median(spacings, axis=0)
    sizes = np.median((shapes - 1) * spacings / median + 1, axis=0)
    worst = coarse_axis(median, sizes)
    if worst is not None:
        finest = max(float(np.delete(median, worst).max()), float(np.percentile(spacings[:, worst], COARSE_PERCENTILE)))
        median[worst] = finest
    return [rounded(value) for value in median], worst


def rounded(value: float, digits: int = DIGITS) -> float:
    """To significant digits."""
    return float(f"{value:.{digits}g}")


def preprocessing(evidence: Evidence) -> tuple[list[Choice], list[float] | None, int | None]:
    """The choices, the spacing that they bring scans to, and the coarse axis or None."""
    choices = [_orientation(evidence)]
    spacing, coarse, why = _spacing(evidence)
    choices.append(Choice("preprocessing.spacing_mm", spacing, why))
    choices.append(_normalize(evidence))
    return choices, spacing, coarse


def _orientation(evidence: Evidence) -> Choice:
    if evidence.oriented:
        why = "every scan says how the patient lies: all are turned to run right, anterior, superior"
        return Choice("preprocessing.orientation", "RAS", why)
    why = "not every scan is a volume that says how the patient lies: axes stay as in the files"
    return Choice("preprocessing.orientation", None, why)


def _spacing(evidence: Evidence) -> tuple[list[float] | None, int | None, str]:
    if not evidence.millimetres:
        return None, None, "not every file states a unit of length: voxels stay as they are"
    spacing, coarse = target_spacing(evidence.spacings, evidence.shapes)
    low, high = evidence.spacings.min(0), evidence.spacings.max(0)
    if np.allclose(low, high, rtol=1e-3):
        return spacing, coarse, f"what every scan has; others are brought to it{_coarse_words(evidence, coarse)}"
    ranges = " x ".join(f"{a:.4g}-{b:.4g}" if b > a * 1.001 else f"{a:.4g}" for a, b in zip(low, high, strict=True))
    return spacing, coarse, f"the median of {ranges} mm along each axis{_coarse_words(evidence, coarse)}"


def _coarse_words(evidence: Evidence, coarse: int | None) -> str:
    if coarse is None:
        return ""
    return (
        f"; axis {coarse} is coarse (more than {ANISOTROPIC:g} times the others' spacing, and as much fewer voxels): "
        f"there the {COARSE_PERCENTILE}th percentile, so that thin slices keep what they show (Isensee et al. 2021)"
    )


def _normalize(evidence: Evidence) -> Choice:
    key = "preprocessing.normalize"
    if evidence.modality == "RGB":
        why = "8-bit colours: a fixed range keeps how they relate, which each image's own mean and SD would take away"
        return Choice(key, {"kind": "range", "range": [0, 255]}, why)
    if evidence.modality == "CT" and evidence.intensities.size:
        return Choice(key, *_of_foreground(evidence))
    why = f"{_kind(evidence)} have no scale of their own: each scan by its own mean and SD{_scales(evidence)}"
    return Choice(key, {"kind": "zscore"}, why)


def _kind(evidence: Evidence) -> str:
    return f"intensities ({evidence.told})"


def _scales(evidence: Evidence) -> str:
    medians = [float(np.median(case.intensities)) for case in evidence.cases if case.intensities.size]
    if not medians or min(medians) <= 0 or max(medians) < 2 * min(medians):
        return ""
    return f"; the foreground's median goes from {min(medians):.4g} to {max(medians):.4g}"


def _of_foreground(evidence: Evidence) -> tuple[dict[str, Any], str]:
    values = evidence.intensities.astype(np.float64)
    low, high = np.percentile(values, CLIP, axis=1)
    numbers = {"low": low, "high": np.maximum(high, low + 1), "shift": values.mean(1), "scale": values.std(1)}
    rescale = {key: [rounded(float(v)) for v in found] for key, found in numbers.items()}
    rescale["scale"] = [scale or 1.0 for scale in rescale["scale"]]
    why = (
        f"CT ({evidence.told}), on one scale everywhere: clipped to the {CLIP[0]}th and {CLIP[1]}th percentile of the "
        f"foreground ({values.shape[1]} voxels of {len(evidence.cases)} cases), less its mean (shift), by its SD "
        "(scale); its own voxels, since most of a scan is air and couch (nnU-Net's)"
    )
    return {"kind": "dataset", "rescale": rescale}, why
