"""ECE and Brier score equal torchmetrics' and scikit-learn's, block by block."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from medseg.datasets.labels import Labels
from medseg.errors import GridError
from medseg.evaluation import calibration
from medseg.evaluation.calibration import BINS, calibration_of
from medseg.scans.scan import open_scan

LABELS = Labels({"background": 0, "a": 1, "b": 2})


def drawn(seed: int, channels: int, shape: tuple[int, ...] = (9, 11)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    raw = rng.random((channels, *shape)) ** 2
    return (raw / raw.sum(0) if channels == 3 else raw), rng.integers(0, 3, shape).astype(np.uint8)


def of(probabilities: np.ndarray, reference: np.ndarray, labels: Labels = LABELS) -> calibration.Calibration:
    return calibration_of(open_scan(probabilities), open_scan(reference[None]), labels)


@given(st.integers(0, 10**6), st.sampled_from([2, 3]))
def test_each_class_is_scored_as_by_torchmetrics_and_scikit_learn(seed, channels):
    torch = pytest.importorskip("torch")
    error = pytest.importorskip("torchmetrics.functional.classification").binary_calibration_error
    probabilities, reference = drawn(seed, channels)
    found = of(probabilities, reference)
    for number, part in enumerate(found.classes, 1):
        p, y = probabilities[number - 3].ravel(), (reference == number).ravel()
        theirs = error(torch.tensor(p), torch.tensor(y.astype(int)), n_bins=BINS)
        assert part.ece == pytest.approx(float(theirs), abs=1e-6)
        assert part.brier == pytest.approx(brier_score_loss(y, p))


@given(st.integers(0, 10**6))
def test_a_case_is_scored_by_its_most_probable_class(seed):
    torch = pytest.importorskip("torch")
    error = pytest.importorskip("torchmetrics.functional.classification").multiclass_calibration_error
    probabilities, reference = drawn(seed, 3)
    found = of(probabilities, reference)
    flat = torch.tensor(probabilities.reshape(3, -1).T)
    theirs = error(flat, torch.tensor(reference.ravel().astype(int)), num_classes=3, n_bins=BINS)
    assert found.top.ece == pytest.approx(float(theirs), abs=1e-6)
    truth = np.eye(3)[reference.ravel()]
    assert found.brier == pytest.approx(((flat.numpy() - truth) ** 2).sum(1).mean())


@given(st.integers(0, 10**6), st.integers(1, 40))
def test_blocks_change_nothing(seed, voxels):
    probabilities, reference = drawn(seed, 3)
    whole = of(probabilities, reference)
    with pytest.MonkeyPatch.context() as patch:
        blocks = calibration.blocks
        patch.setattr(calibration, "blocks", lambda scan, _: blocks(scan, voxels))
        parts = of(probabilities, reference)
    for one, other in zip((whole.top, *whole.classes), (parts.top, *parts.classes), strict=True):
        assert (one.ece, one.brier) == pytest.approx((other.ece, other.brier))
    assert whole.brier == pytest.approx(parts.brier)


def test_certain_and_right_is_perfect():
    _, reference = drawn(1, 3)
    certain = np.moveaxis(np.eye(3)[reference], -1, 0)
    found = of(certain, reference)
    assert found.top.ece == found.brier == 0
    assert all(part.ece == part.brier == 0 for part in found.classes)


def test_bytes_are_255_times_the_probability():
    probabilities, reference = drawn(2, 2)
    stored = np.rint(probabilities * 255).astype(np.uint8)
    one, other = of(stored, reference), of(stored / 255, reference)
    assert [part.ece for part in one.classes] == [part.ece for part in other.classes]


def test_ignored_voxels_do_not_count():
    labels = Labels({"background": 0, "a": 1, "b": 2, "ignore": 9})
    probabilities, reference = drawn(3, 3)
    cut = of(probabilities[:, :, :6], reference[:, :6])
    reference[:, 6:] = 9
    masked = of(probabilities, reference, labels)
    assert masked.brier == pytest.approx(cut.brier) and masked.top.ece == pytest.approx(cut.top.ece)
    reference[:] = 9
    assert math.isnan(of(probabilities, reference, labels).top.ece)


def test_what_are_no_probabilities_of_these_labels():
    probabilities, reference = drawn(4, 3)
    with pytest.raises(GridError, match=r"4 channels, and 2 foreground labels need 2 .* or 3"):
        of(np.concatenate([probabilities, probabilities[:1]]), reference)
    with pytest.raises(GridError, match="outside 0 to 1"):
        of(probabilities * 3, reference)
    with pytest.raises(GridError, match="different shapes"):
        of(probabilities[:, 1:], reference)
