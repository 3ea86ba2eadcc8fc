"""V-Rand and V-Info equal scikit-learn's, and thinning keeps every segment."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage
from sklearn.metrics import mutual_info_score, normalized_mutual_info_score
from sklearn.metrics.cluster import entropy, pair_confusion_matrix

from medseg.evaluation.connectomics import segments_of, thinned


@st.composite
def borders(draw):
    shape = draw(array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=8))
    return tuple(draw(arrays(bool, shape)) for _ in range(2))


def clusters(prediction: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The segments of each pixel of the reference's segments; each border pixel of the prediction is one of its own."""
    truth, test = ndimage.label(~reference)[0], ndimage.label(~prediction)[0].astype(int)
    inside = truth > 0
    alone = (test == 0) & inside
    test[alone] = test.max() + 1 + np.arange(alone.sum())
    return truth[inside], test[inside]


@given(borders())
def test_rand_is_scikit_learns(pair):
    prediction, reference = pair
    truth, test = clusters(prediction, reference)
    score = segments_of(prediction, reference).rand
    if not truth.size:
        assert (score.f, score.split, score.merge) == (1, 1, 1)
        return
    (_, merged), (split, together) = pair_confusion_matrix(truth, test)
    both = together + truth.size
    assert score.split == pytest.approx(both / (both + split))
    assert score.merge == pytest.approx(both / (both + merged))
    assert score.f == pytest.approx(2 * score.split * score.merge / (score.split + score.merge))


@given(borders())
def test_info_is_scikit_learns(pair):
    prediction, reference = pair
    truth, test = clusters(prediction, reference)
    score = segments_of(prediction, reference).info
    if not truth.size:
        assert (score.f, score.split, score.merge) == (1, 1, 1)
        return
    mutual = mutual_info_score(truth, test)
    assert score.f == pytest.approx(normalized_mutual_info_score(truth, test), abs=1e-9)
    for part, clustering in ((score.split, test), (score.merge, truth)):
        known = entropy(clustering)
        assert part == pytest.approx(min(mutual / known, 1) if known > 1e-12 else 1, abs=1e-9)


@given(borders())
def test_a_border_agrees_with_itself_thinned_or_not(pair):
    border, _ = pair
    for test in (border, thinned(border)):
        segments = segments_of(test, border)
        assert (segments.rand.f, segments.rand.split, segments.rand.merge) == (1, 1, 1)
        assert segments.info.f == pytest.approx(1)


@given(borders())
def test_thinning_takes_border_away_and_keeps_every_segment(pair):
    border, _ = pair
    thin = thinned(border)
    assert not (thin & ~border).any()
    before, count = ndimage.label(~border)
    after, kept = ndimage.label(~thin)
    assert kept == count
    for number in range(1, count + 1):
        assert len(np.unique(after[before == number])) == 1


def test_thin_borders_are_one_pixel_wide_and_lie_in_the_middle():
    border = np.zeros((30, 40), bool)
    border[:, 17:22] = True
    thin = thinned(border)
    assert (thin.sum(1) == 1).all() and thin[:, 19].all()


def test_a_border_that_ends_in_a_segment_parts_nothing():
    border = np.zeros((30, 40), bool)
    border[10:20, 17:22] = True
    assert not thinned(border).any()


def test_widths_hardly_matter_once_thinned_and_gaps_do():
    reference = np.zeros((60, 60), bool)
    reference[29:31] = True
    wide, gap = ndimage.binary_dilation(reference, iterations=4), reference.copy()
    gap[:, 20:23] = False
    plain, thin = segments_of(wide, reference).rand.f, segments_of(thinned(wide), reference).rand.f
    assert plain < 0.95 < 0.99 < thin
    merged = segments_of(thinned(gap), reference).rand
    assert merged.merge < 0.6 and merged.split > 0.99
    cut = segments_of(thinned(reference), gap).rand
    assert cut.split < 0.6 and cut.merge > 0.95


def test_masks_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        segments_of(np.zeros((3, 3), bool), np.zeros((3, 4), bool))
