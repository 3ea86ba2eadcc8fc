"""Overlays: their size, their slice and their colours, for whatever a scan can hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from medseg.tracking.pictures import (
    ERRORS,
    LONG_SIDE,
    PALETTE,
    as_rgb,
    errors,
    overlay,
    painted,
    panel_size,
    shown_slice,
    unpredicted,
)

SHAPES = st.one_of(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    st.just((3, 2000)),
)


@given(SHAPES, st.integers(1, 4), st.sampled_from(["uint8", "int16", "uint16", "float32"]), st.data())
@settings(max_examples=60, deadline=None)
def test_every_scan_has_a_picture_of_bounded_size(
    shape: tuple[int, ...], channels: int, dtype: str, data: st.DataObject
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    image = (rng.normal(size=(channels, *shape)) * 100).astype(dtype)
    if dtype == "float32":
        image.flat[0] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf, 1e30]))
    reference, prediction = rng.integers(0, 9, (2, *shape)).astype(np.uint8)
    spacing = data.draw(st.none() | st.tuples(*[st.floats(0.1, 10)] * len(shape)))
    picture = overlay(image, reference, prediction, spacing)
    assert picture.mode == "RGB"
    assert max(picture.size) <= 2 * (LONG_SIDE + 22)
    before = unpredicted(image, reference, spacing)
    assert before.mode == "RGB" and max(before.size) <= picture.width + picture.height


def test_the_slice_with_most_foreground_is_shown() -> None:
    reference = np.zeros((7, 5, 6), np.uint8)
    assert [shown_slice(reference, axis) for axis in range(3)] == [3, 2, 3]
    reference[5, 1, :3] = 2
    reference[5, 3, 3] = 1
    assert [shown_slice(reference, axis) for axis in range(3)] == [5, 1, 0]


def test_a_volume_is_cut_across_its_coarsest_axis() -> None:
    image = np.zeros((1, 40, 50, 10))
    labels = np.zeros((40, 50, 10), np.uint8)
    assert overlay(image, labels, labels).size == overlay(image[..., 0], labels[..., 0], labels[..., 0]).size
    coarse = overlay(image, labels, labels, spacing=(3.0, 1.0, 1.0))
    assert coarse.size == overlay(image[:, 0], labels[0], labels[0]).size
    named = overlay(image, labels, labels, axis=1)
    assert named.size == overlay(image[:, :, 0], labels[:, 0], labels[:, 0]).size


@pytest.mark.parametrize(("shape", "columns"), [((60, 60), 2), ((100, 400), 1), ((512, 200), 4)])
def test_panels_lie_as_near_to_a_square_as_they_go(shape: tuple[int, int], columns: int) -> None:
    labels = np.zeros(shape, np.uint8)
    width, height = overlay(np.zeros((1, *shape)), labels, labels).size
    across, down = panel_size(shape, (1.0, 1.0))
    assert (width // across, height // down) == (columns, 4 // columns)
    before = unpredicted(np.zeros((1, *shape)), labels)
    assert before.width // across * (before.height // down) == 2


def test_grey_is_stretched_and_rgb_is_kept() -> None:
    rgb = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(3, 2, 3)
    assert np.array_equal(as_rgb(rgb), np.moveaxis(rgb, 0, -1))
    grey = np.linspace(-1000, 3000, 10_000).reshape(1, 100, 100)
    grey[0, 0, 0], grey[0, 50, 50] = 1e9, np.nan
    shown = as_rgb(grey)
    assert shown.min() == 0 and shown.max() == 255 and (shown[..., 0] == shown[..., 2]).all()
    assert abs(float(np.median(shown)) - 127) < 3
    assert (as_rgb(np.full((1, 4, 4), 7)) == as_rgb(np.full((1, 4, 4), 7))[0, 0]).all()


@given(arrays(np.uint8, (6, 6), elements=st.integers(0, 9)), arrays(np.uint8, (6, 6), elements=st.integers(0, 9)))
def test_each_error_has_its_colour_and_agreement_none(reference: NDArray, prediction: NDArray) -> None:
    base = np.full((6, 6, 3), 100, np.uint8)
    shown = errors(base, reference, prediction)
    for row, column in np.ndindex(6, 6):
        true, said = reference[row, column], prediction[row, column]
        kind = "false positive" if true == 0 else "false negative" if said == 0 else "wrong class"
        expected = (50, 50, 50) if true == said else ERRORS[kind]
        assert tuple(shown[row, column]) == expected


def test_classes_are_painted_in_their_colours_and_background_is_left() -> None:
    base = np.zeros((1, 10, 3), np.uint8)
    shown = painted(base, np.arange(10)[None])
    assert tuple(shown[0, 0]) == (0, 0, 0)
    assert len({tuple(pixel) for pixel in shown[0, 1:8].tolist()}) == len(PALETTE) == 7
    assert tuple(shown[0, 8]) == tuple(shown[0, 1])


def test_shapes_that_do_not_match_are_refused() -> None:
    with pytest.raises(ValueError, match="do not match"):
        overlay(np.zeros((1, 4, 4)), np.zeros((4, 4)), np.zeros((4, 5)))
