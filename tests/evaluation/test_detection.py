"""Lesions and instances are found as by hand, as by MONAI and by an exhaustive search."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from medseg.evaluation.detection import THRESHOLDS_PERCENT, Found, InstanceScores, lesions, match
from medseg.evaluation.overlaps import Components, Numbers, Overlaps, Tally

SMALL = arrays(np.uint8, (6, 8), elements=st.integers(0, 3))


def numbered(reference: np.ndarray, prediction: np.ndarray) -> Overlaps:
    counted = Tally(Numbers(), Numbers())
    counted.add(reference, prediction)
    return counted.overlaps()


def components(reference: np.ndarray, prediction: np.ndarray) -> Overlaps:
    counted = Tally(*(Components(reference.ndim, diagonal=True) for _ in range(2)))
    counted.add(reference > 0, prediction > 0)
    return counted.overlaps()


@given(SMALL, SMALL)
def test_lesions_are_found_by_any_voxel(reference, prediction):
    found, dice = lesions(components(reference, prediction))
    labelled = [ndimage.label(mask, np.ones((3, 3)))[0] for mask in (reference, prediction)]
    objects = [[part == n for n in range(1, part.max() + 1)] for part in labelled]
    hit = [lesion for lesion in objects[0] if (lesion & (prediction > 0)).any()]
    false = [one for one in objects[1] if not (one & (reference > 0)).any()]
    assert found == Found(len(hit), len(false), len(objects[0]) - len(hit))
    total = 0.0
    for lesion in hit:
        touching = np.any([one for one in objects[1] if (one & lesion).any()], axis=0)
        total += 2 * (lesion & touching).sum() / (lesion.sum() + touching.sum())
    everything = found.tp + found.fp + found.fn
    assert dice == pytest.approx(total / everything if everything else 1.0)
    assert 0 <= dice <= 1


@given(SMALL, SMALL, st.sampled_from([0.05, 0.1, 0.3]))
def test_matching_is_the_best_of_all(reference, prediction, iou):
    overlaps = numbered(reference, prediction)
    share = overlaps.shared / overlaps.union
    able = [n for n in range(len(share)) if share[n] > iou]
    best = (0, 0.0)
    for size in range(1, 4):
        for some in itertools.combinations(able, size):
            rows, columns = overlaps.pairs[list(some)].T
            if len(set(rows)) == len(set(columns)) == size:
                best = max(best, (size, float(share[list(some)].sum())))
    chosen = match(overlaps, iou)
    assert len(set(overlaps.pairs[chosen, 0])) == len(set(overlaps.pairs[chosen, 1])) == len(chosen) == best[0]
    assert share[chosen].sum() == pytest.approx(best[1])
    found, dice = lesions(overlaps, iou)
    assert (found.tp, found.tp + found.fn) == (len(chosen), overlaps.reference.size)
    assert 0 <= dice <= 1


@settings(max_examples=40)
@given(SMALL, SMALL)
def test_panoptic_quality_is_monais(reference, prediction):
    torch = pytest.importorskip("torch")
    compute = pytest.importorskip("monai.metrics").compute_panoptic_quality
    scores = InstanceScores.of(numbered(reference, prediction))
    if not (reference.any() or prediction.any()):
        assert (scores.pq, scores.rq) == (1, 1) and math.isnan(scores.sq)
        return
    theirs = {
        name: float(
            compute(
                torch.tensor(prediction.astype(int)),
                torch.tensor(reference.astype(int)),
                metric_name=name,
                smooth_numerator=0,
            )
        )
        for name in ("pq", "rq")
    }
    assert scores.rq == pytest.approx(theirs["rq"], abs=1e-6)
    assert scores.pq == pytest.approx(theirs["pq"], abs=1e-5)
    if not math.isnan(scores.sq):
        assert scores.pq == pytest.approx(scores.sq * scores.rq)


@given(SMALL, SMALL)
def test_average_precision_is_counted_from_ious(reference, prediction):
    scores = InstanceScores.of(numbered(reference, prediction))
    truths, tests = ([part == n for n in np.unique(part[part > 0])] for part in (reference, prediction))
    ious = np.array([[(t & p).sum() / (t | p).sum() for p in tests] for t in truths]).reshape(len(truths), len(tests))
    expected = []
    for percent in THRESHOLDS_PERCENT:
        tp = int((ious > percent / 100 + 1e-12).sum())
        everything = len(truths) + len(tests) - tp
        expected.append(tp / everything if everything else 1.0)
        assert scores.ap_at(percent) == pytest.approx(expected[-1])
    assert scores.ap == pytest.approx(np.mean(expected))


@given(SMALL, st.permutations(range(1, 4)))
def test_numbers_are_only_names(reference, order):
    renamed = np.array([0, *order], np.uint8)[reference]
    scores = InstanceScores.of(numbered(reference, renamed))
    assert (scores.ap, scores.pq, scores.rq) == (1, 1, 1)


def test_half_is_not_above_half():
    reference, prediction = np.zeros((1, 6), np.uint8), np.zeros((1, 6), np.uint8)
    reference[0, :4] = 1
    prediction[0, :2] = 1
    scores = InstanceScores.of(numbered(reference, prediction))
    assert (scores.ap_at(50), scores.pq) == (0, 0)
    prediction[0, 2] = 1
    assert InstanceScores.of(numbered(reference, prediction)).pq == 0.75


def test_a_blob_over_two_lesions_finds_both_by_touch_and_one_by_match():
    reference, prediction = np.zeros((3, 9), np.uint8), np.zeros((3, 9), np.uint8)
    reference[1, :3] = reference[1, 5:9] = 1
    prediction[1] = 1
    overlaps = components(reference, prediction)
    assert lesions(overlaps)[0] == Found(2, 0, 0)
    assert lesions(overlaps, 0.1)[0] == Found(1, 0, 1)


@pytest.mark.parametrize(
    ("found", "f1", "sensitivity", "precision"),
    [
        (Found(0, 0, 0), 1, 1, 1),
        (Found(0, 2, 0), 0, math.nan, 0),
        (Found(0, 0, 2), 0, 0, math.nan),
        (Found(3, 1, 2), 6 / 9, 3 / 5, 3 / 4),
    ],
)
def test_empty_sets_of_objects_are_defined(found, f1, sensitivity, precision):
    np.testing.assert_equal([found.f1, found.sensitivity, found.precision], [f1, sensitivity, precision])
