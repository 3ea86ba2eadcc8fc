"""The pieces of the one warp: cubic weights against their definition, and bounds that are reached but not passed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import RandomState

from medseg.training.warp import Elastic, Rotation, Scaling, Warpd, cubic_weights, sample_linear, sample_nearest


@given(st.integers(1, 50), st.integers(2, 9))
def test_cubic_weights_sum_to_one_and_meet_the_nodes(n, nodes):
    weights = cubic_weights(n, nodes)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    if n > 1 and (n - 1) % (nodes - 1) == 0:
        np.testing.assert_allclose(weights[:: (n - 1) // (nodes - 1)], np.eye(nodes), atol=1e-6)


def test_cubic_weights_reproduce_a_parabola_inside():
    x = np.linspace(0, 6, 61)
    inside = (x >= 1) & (x <= 5)
    np.testing.assert_allclose((cubic_weights(61, 7) @ np.arange(7.0) ** 2)[inside], x[inside] ** 2, atol=1e-5)


@given(st.floats(1, 180), st.tuples(st.integers(0, 40), st.integers(0, 40)), st.integers(0, 999))
def test_rotations_stay_within_their_bound(degrees, half, seed):
    rotation = Rotation(degrees, (0, 1), 1.0)
    corners = np.array([[a, b] for a in (-half[0], half[0]) for b in (-half[1], half[1])])
    turned = np.abs(corners @ rotation.matrix(RandomState(seed), 2).T).max(0)
    assert (turned <= np.array(rotation.farthest(half)) + 1e-9).all()


def test_the_bound_of_a_right_angle_is_the_diagonal():
    assert Rotation(90, (0, 1), 1.0).farthest((3, 4)) == pytest.approx((5, 5))


@given(st.integers(0, 999), st.integers(2, 5), st.tuples(st.integers(1, 30), st.integers(1, 30)))
def test_displacements_stay_within_their_bound(seed, grid, window):
    piece = Elastic((2.0, 0.5), grid, 1.0)
    fields = piece.displacement(RandomState(seed), window)
    for field, limit in zip(fields, piece.largest(window), strict=True):
        assert tuple(field.shape) == window
        assert field.abs().max() <= limit + 1e-5


def test_displacement_nodes_have_the_papers_standard_deviation():
    piece = Elastic((10.0, 10.0), 3, 1.0)
    nodes = np.array([piece.displacement(RandomState(seed), (3, 3))[0].numpy() for seed in range(500)])
    assert abs(nodes.std() - 10) < 0.5 and abs(nodes.mean()) < 0.5


def test_a_piece_that_is_not_drawn_needs_no_less():
    warp = Warpd([Scaling(2.0, 3.0, 0.5), Elastic((1.0, 1.0), 3, 0.5)])
    assert warp.margin((9, 9)) == (math.ceil(warp.pieces[1].largest((9, 9))[0]) + 1,) * 2
    assert Warpd([]).margin((9, 9)) == (0, 0)


@given(st.integers(0, 99))
def test_sampling_equals_its_definition(seed):
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.random((2, 6, 7), np.float32))
    y, x = rng.random((2, 4, 5)) * np.array([5, 6])[:, None, None] * 0.999
    source = [torch.from_numpy(c.astype(np.float32)) for c in (y, x)]
    i, j = np.floor(y).astype(int), np.floor(x).astype(int)
    rows, columns, whole = y - i, x - j, image.numpy()
    upper = whole[:, i, j] * (1 - columns) + whole[:, i, j + 1] * columns
    lower = whole[:, i + 1, j] * (1 - columns) + whole[:, i + 1, j + 1] * columns
    np.testing.assert_allclose(sample_linear(image, source), upper * (1 - rows) + lower * rows, atol=1e-5)
    nearest = sample_nearest(image, source)
    np.testing.assert_array_equal(nearest, whole[:, np.rint(y).astype(int), np.rint(x).astype(int)])
