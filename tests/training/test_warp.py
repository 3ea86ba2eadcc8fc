"""The pieces of the one warp: cubic weights against their definition, and bounds that are reached but not passed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import RandomState
from scipy import ndimage, stats

from medseg.training.warp import (
    TRUNCATION,
    Elastic,
    Rotation,
    Scaling,
    Warp,
    cubic_weights,
    sample_linear,
    sample_nearest,
)


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


@given(st.floats(1, 180), st.integers(0, 999), st.sampled_from([((0, 1),), ((1, 2),), ((0, 1), (0, 2), (1, 2))]))
def test_rotations_are_rotations_in_their_planes(degrees, seed, planes):
    matrix = Rotation(degrees, planes, 1.0).matrix(RandomState(seed), 3)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)
    for axis in set(range(3)) - {axis for plane in planes for axis in plane}:
        np.testing.assert_array_equal(matrix[axis], np.eye(3)[axis])


def test_angles_are_uniform_and_each_plane_has_its_own():
    rotation = Rotation(30, ((0, 1), (0, 2), (1, 2)), 1.0)
    matrices = [rotation.matrix(RandomState(seed), 3) for seed in range(2000)]
    # R = T_12 T_02 T_01 by hand: its first column is (cos b cos a, ..., ...), so both angles can be read off.
    second = np.array([math.degrees(math.asin(np.clip(_unturned(m)[0], -1, 1))) for m in matrices])
    first = np.array([_unturned(m)[1] for m in matrices])
    for angles in (first, second):
        assert stats.kstest(angles, stats.uniform(-30, 60).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1


def _unturned(matrix):
    """sin of the angle in plane (0, 2), and the angle in plane (0, 1) in degrees: row 0 is (cb·ca, -cb·sa, -sb)."""
    row = matrix[0]
    return -row[2], math.degrees(math.atan2(-row[1], row[0]))


@given(st.integers(0, 999), st.sampled_from([(0,), (1, 2), (0, 1, 2)]))
def test_scaling_has_one_factor_and_leaves_other_axes(seed, axes):
    diagonal = np.diag(Scaling(0.5, 2.0, axes, 1.0).matrix(RandomState(seed), 3))
    assert len({diagonal[axis] for axis in axes}) == 1
    assert 0.5 <= 1 / diagonal[axes[0]] <= 2
    assert all(diagonal[axis] == 1 for axis in set(range(3)) - set(axes))


@given(st.integers(0, 999), st.integers(2, 5), st.tuples(st.integers(1, 30), st.integers(1, 30)))
def test_displacements_stay_within_their_bound(seed, grid, window):
    piece = Elastic((2.0, 0.5), grid, 1.0)
    overshoot = math.prod(np.abs(cubic_weights(n, grid)).sum(1).max() for n in window)
    for field, sigma in zip(piece.displacement(RandomState(seed), window), piece.sigma, strict=True):
        assert tuple(field.shape) == window
        assert field.abs().max() <= TRUNCATION * sigma * overshoot + 1e-5


def test_displacement_nodes_have_the_papers_standard_deviation():
    piece = Elastic((10.0, 10.0), 3, 1.0)
    nodes = np.array([piece.displacement(RandomState(seed), (3, 3))[0].numpy() for seed in range(500)])
    assert abs(nodes.std() - 10) < 0.5 and abs(nodes.mean()) < 0.5


def test_each_piece_is_drawn_as_often_as_it_says():
    pieces = [Scaling(2.0, 3.0, (0, 1), 0.2), Elastic((1.0, 1.0), 2, 0.3)]
    drawn = sum(Warp.drawn(pieces, (4, 4), RandomState(seed)) is not None for seed in range(2000))
    assert stats.binomtest(drawn, 2000, 1 - 0.8 * 0.7).pvalue > 1e-3
    assert Warp.drawn([], (4, 4), RandomState(0)) is None


@pytest.mark.parametrize("window", [(13, 18), (7, 10, 9)])
def test_a_matrix_alone_equals_scipys_affine_transform(window):
    dims = len(window)
    pieces = [Rotation(40, ((0, 1),), 1.0), Scaling(0.6, 0.9, tuple(range(dims)), 1.0)]
    warp = Warp.drawn(pieces, window, RandomState(3))
    read = tuple(n + 2 * m for n, m in zip(window, warp.margin, strict=True))
    image = np.random.default_rng(0).random((1, *read), np.float32)
    seen, _ = warp(torch.from_numpy(image), torch.from_numpy(image), window)
    random = RandomState(3)
    random.uniform(size=2)
    matrix = pieces[0].matrix(random, dims) @ pieces[1].matrix(random, dims)
    middle = [(n - 1) / 2 for n in window]
    offset = np.array([(n - 1) / 2 for n in read]) - matrix @ middle
    wanted = ndimage.affine_transform(image[0].astype(float), matrix, offset, window, order=1)
    np.testing.assert_allclose(seen[0], wanted, atol=1e-4)


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
