"""Metrics equal those of scikit-learn and MONAI, add up over blocks, and are defined where a class is empty."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score, precision_score, recall_score

from medseg.datasets.labels import Labels
from medseg.errors import GridError
from medseg.evaluation import metrics
from medseg.evaluation.metrics import Counts, Scores, evaluate_pair
from medseg.scans.scan import open_scan

LABELS = Labels({"background": 0, "a": 10, "b": 20, "c": 30})


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(array_shapes(min_dims=2, max_dims=3, max_side=6))
    classes = st.integers(0, 3)
    return draw(arrays(np.uint8, shape, elements=classes)), draw(arrays(np.uint8, shape, elements=classes))


@given(pairs())
def test_metrics_are_scikit_learns(pair: tuple[np.ndarray, np.ndarray]) -> None:
    prediction, reference = pair
    counts = Counts.of(prediction, reference, 3)
    np.testing.assert_array_equal(
        counts.table, confusion_matrix(reference.ravel(), prediction.ravel(), labels=range(4))
    )
    assert counts.pixel_error == pytest.approx((prediction != reference).mean())
    for number in (1, 2, 3):
        p, r = (prediction == number).ravel(), (reference == number).ravel()
        scores = counts.scores(number)
        assert scores.dice == pytest.approx(f1_score(r, p, zero_division=1.0 if not (p | r).any() else 0.0))
        assert scores.iou == pytest.approx(jaccard_score(r, p, zero_division=1.0 if not (p | r).any() else 0.0))
        assert scores.pixel_error == pytest.approx((p != r).mean())
        if (~r).any():
            assert scores.specificity == pytest.approx(recall_score(~r, ~p))
        together = int(p.sum()) + int(r.sum())
        assert scores.volume_similarity == pytest.approx(
            1 - abs(int(p.sum()) - int(r.sum())) / together if together else 1
        )
        if r.any():
            assert scores.sensitivity == pytest.approx(recall_score(r, p))
        if p.any():
            assert scores.precision == pytest.approx(precision_score(r, p))


@given(pairs(), st.integers(0, 6))
def test_counts_add_up(pair: tuple[np.ndarray, np.ndarray], cut: int) -> None:
    prediction, reference = pair
    parts = (Counts.of(prediction[s], reference[s], 3) for s in (slice(None, cut), slice(cut, None)))
    total = sum(parts, Counts.none(3))
    np.testing.assert_array_equal(total.table, Counts.of(prediction, reference, 3).table)


@settings(max_examples=30, deadline=None)
@given(pairs())
def test_dice_is_monais(pair: tuple[np.ndarray, np.ndarray]) -> None:
    torch = pytest.importorskip("torch")
    compute_dice = pytest.importorskip("monai.metrics").compute_dice
    one_hot = [torch.tensor(np.stack([x == c for c in range(4)])[None].astype(np.float32)) for x in pair]
    theirs = compute_dice(*one_hot, include_background=False, ignore_empty=False)[0]
    counts = Counts.of(*pair, 3)
    np.testing.assert_allclose([counts.scores(n).dice for n in (1, 2, 3)], theirs, rtol=1e-6)


def test_empty_classes_are_defined() -> None:
    none, some = np.zeros((2, 4), np.uint8), np.ones((2, 4), np.uint8)
    some[0] = 0
    cases = {
        (0, 0): Scores(1, 1, 1, 1, 1, 1, 0),
        (1, 0): Scores(0, 0, math.nan, 0, 0.5, 0, 0.5),
        (0, 1): Scores(0, 0, 0, math.nan, 1, 0, 0.5),
    }
    for (predicted, expected), scores in cases.items():
        found = Counts.of((none, some)[predicted], (none, some)[expected], 1).scores(1)
        np.testing.assert_array_equal(list(found), list(scores))


@given(pairs(), st.integers(1, 30))
@settings(max_examples=50)
def test_scans_are_counted_block_by_block(pair: tuple[np.ndarray, np.ndarray], voxels: int) -> None:
    prediction, reference = (open_scan(LABELS.decode(x)[None]) for x in pair)
    whole = metrics.blocks
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "blocks", lambda scan: whole(scan, voxels))
        counts = evaluate_pair(prediction, reference, LABELS)
    np.testing.assert_array_equal(counts.table, Counts.of(*pair, 3).table)


def test_grids_that_do_not_match() -> None:
    with pytest.raises(GridError, match="4 x 5 and 4 x 6"):
        evaluate_pair(open_scan(np.zeros((1, 4, 5), np.uint8)), open_scan(np.zeros((1, 4, 6), np.uint8)), LABELS)


def test_what_no_count_can_be_made_of() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        Counts.of(np.zeros(3, np.uint8), np.zeros(4, np.uint8), 1)
    with pytest.raises(ValueError, match="above 1"):
        Counts.of(np.full(3, 2, np.uint8), np.zeros(3, np.uint8), 1)


@given(pairs())
def test_swapping_the_two_swaps_sensitivity_and_precision_and_nothing_else(pair: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = (Counts.of(*p, 3).scores(1) for p in (pair, pair[::-1]))
    for name in ("dice", "iou", "volume_similarity", "pixel_error"):
        assert getattr(one, name) == getattr(other, name)
    np.testing.assert_equal([one.sensitivity, one.precision], [other.precision, other.sensitivity])


@given(pairs(), st.integers(0, 5))
def test_ignored_voxels_are_as_if_they_were_not_there(pair: tuple[np.ndarray, np.ndarray], cut: int) -> None:
    prediction, reference = (part.astype(np.int8) for part in pair)
    rest = Counts.of(prediction[cut:], reference[cut:], 3)
    reference[:cut] = -1
    masked = Counts.of(prediction, reference, 3)
    np.testing.assert_array_equal(masked.table, rest.table)
    np.testing.assert_equal([list(masked.scores(n)) for n in (1, 2, 3)], [list(rest.scores(n)) for n in (1, 2, 3)])
    prediction[reference < 0] = -1
    np.testing.assert_array_equal(Counts.of(prediction, reference, 3).table, rest.table)


def test_a_prediction_that_ignores_what_counts_predicts_background() -> None:
    table = Counts.of(np.array([-1, -1], np.int8), np.array([1, 0], np.int8), 1).table
    np.testing.assert_array_equal(table, [[1, 0], [1, 0]])


def test_a_case_that_is_ignored_altogether_has_no_pixel_error() -> None:
    counts = Counts.of(np.zeros(3, np.int8), np.full(3, -1, np.int8), 1)
    assert counts.voxels == 0 and math.isnan(counts.pixel_error)


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = np.random.default_rng(0).integers(0, 4, (2, 7, 9)).astype(np.uint8)
    whole = Counts.of(*drawn, 3).table
    monkeypatch.setattr(metrics, "PIECE", 5)
    np.testing.assert_array_equal(Counts.of(*drawn, 3).table, whole)
