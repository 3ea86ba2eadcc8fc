"""Augmentation: no fill value leaks in, image and label stay together, and a seed says everything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.meta_obj import get_track_meta

from medseg.errors import ConfigError, GridError
from medseg.training.augment import TRANSFORMS, build_augmentation

SPATIAL = {
    "flip": st.fixed_dictionaries({"name": st.just("flip")}),
    "rotate90": st.fixed_dictionaries({"name": st.just("rotate90")}),
    "rotate": st.fixed_dictionaries(
        {"name": st.just("rotate"), "degrees": st.floats(1, 180), "axes": st.sampled_from(["all", [0, 1]])}
    ),
    "scale": st.fixed_dictionaries(
        {
            "name": st.just("scale"),
            "range": st.tuples(st.floats(0.5, 1.2), st.floats(1.2, 2)).map(list),
            "axes": st.sampled_from([None, [1]]),
        }
    ),
    "elastic": st.fixed_dictionaries(
        {"name": st.just("elastic"), "sigma": st.floats(0.5, 4), "grid": st.integers(2, 5)}
    ),
}
ANY_SPATIAL = st.lists(st.one_of(*SPATIAL.values()), max_size=4).map(
    lambda specs: [{**spec, "probability": 1.0} for spec in specs]
)
WINDOWS = st.one_of(st.tuples(*[st.integers(1, 24)] * 2), st.tuples(*[st.integers(1, 10)] * 3))


def blobs(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A smooth binary picture."""
    noise = np.random.default_rng(seed).normal(size=shape)
    for axis in range(len(shape)):
        noise = sum(np.roll(noise, shift, axis) for shift in range(-3, 4))
    return (noise > 0).astype(np.uint8)


@given(specs=ANY_SPATIAL, window=WINDOWS, seed=st.integers(0, 2**40))
@settings(max_examples=80, deadline=None)
def test_ones_stay_ones(specs, window, seed):
    augmentation = build_augmentation(specs, len(window))
    draw = augmentation.draw(window, seed)
    read = draw.read_shape
    image, label = augmentation(np.ones((2, *read), np.float32), np.ones(read, np.int32), draw, window)
    assert image.shape == (2, *window) and label.shape == window
    np.testing.assert_allclose(image, 1, atol=1e-6)
    assert (label == 1).all()


@given(specs=ANY_SPATIAL, seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_no_more_is_read_than_is_needed(specs, seed):
    """Without a voxel of what is read, and one more that guards the rounding, samples would fall outside."""
    draw = build_augmentation(specs, 2).draw((12, 15), seed)
    if draw.warp is None:
        assert draw.read_shape == (12, 15)
        return
    for read, n, source in zip(draw.read_shape, (12, 15), draw.warp.source, strict=True):
        assert read == n or source.abs().max() > (read - 1) / 2 - 2


@given(specs=ANY_SPATIAL, seed=st.integers(0, 1000), odd=st.booleans(), volume=st.booleans())
@settings(max_examples=40, deadline=None)
def test_image_and_label_move_together(specs, seed, odd, volume):
    dims, side = (3, 12) if volume else (2, 25)
    window = (side + odd,) * dims
    core = (side + odd - 6,) * dims
    augmentation = build_augmentation(specs, dims)
    draw = augmentation.draw(window, seed)
    label = blobs(draw.read_shape, seed)
    image, out = augmentation(label[None].astype(np.float32), label, draw, core)
    seen = image[(0, *(slice(3, 3 + n) for n in core))]
    certain = np.abs(seen - 0.5) > 0.5 - 1e-6 if volume else np.abs(seen - 0.5) > 0.26
    # Where all neighbours agree, or one of them outweighs the rest, interpolation and nearest say the same.
    assert ((seen > 0.5) == (out == 1))[certain].all()
    assert out.dtype == label.dtype


@pytest.mark.parametrize("dims", [2, 3])
def test_without_transforms_it_crops_the_centre(dims):
    augmentation = build_augmentation([], dims)
    window, core = (9, 8, 7)[:dims], (5, 4, 3)[:dims]
    draw = augmentation.draw(window, 1)
    assert draw.read_shape == window
    image = np.random.default_rng(0).normal(size=(2, *(n + 4 for n in window))).astype(np.float32)
    label = np.arange(np.prod(image.shape[1:])).reshape(image.shape[1:])
    seen, kept = augmentation(image, label, draw, core)
    np.testing.assert_array_equal(seen, image[(slice(None), *(slice(2, 2 + n) for n in window))])
    np.testing.assert_array_equal(kept, label[tuple(slice(4, 4 + n) for n in core)])


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16", "int16", "uint32", "int64"])
def test_labels_keep_their_type(dtype):
    augmentation = build_augmentation([{"name": name, "probability": 1} for name in SPATIAL], 2)
    draw = augmentation.draw((8, 8), 0)
    read = draw.read_shape
    _, label = augmentation(np.ones((1, *read), np.float32), np.ones(read, dtype), draw, (4, 4))
    assert label.dtype == dtype and label.shape == (4, 4) and (label == 1).all()


def everything(dims: int) -> list[dict]:
    """Every transform at an even chance."""
    return [{"name": name, "probability": 0.5} for name in TRANSFORMS]


@pytest.mark.parametrize("dims", [2, 3])
def test_a_seed_says_everything(dims):
    window = (16,) * dims
    image = np.random.default_rng(0).normal(size=(1, *window)).astype(np.float32)
    first, second = (build_augmentation(everything(dims), dims) for _ in range(2))

    def sample(augmentation, seed):
        draw = augmentation.draw(window, seed)
        wider = [(r - n) // 2 for r, n in zip(draw.read_shape, window, strict=True)]
        padded = np.pad(image, [(0, 0), *((m, m) for m in wider)], "symmetric")
        return augmentation(padded, blobs(draw.read_shape), draw, window)

    before = [sample(first, seed) for seed in range(4)]
    torch.manual_seed(7)
    sample(second, 99)
    again = [sample(second, seed) for seed in reversed(range(4))][::-1]
    for (a, b), (c, d) in zip(before, again, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)
    assert not np.array_equal(before[0][0], before[1][0])


def test_what_is_given_is_not_changed_nor_is_monai():
    augmentation = build_augmentation(everything(2), 2)
    image, label = np.random.default_rng(0).normal(size=(1, 200, 200)).astype(np.float32), blobs((200, 200))
    kept, tracked = (image.copy(), label.copy()), get_track_meta()
    for seed in range(20):
        augmentation(image, label, augmentation.draw((16, 16), seed), (16, 16))
    np.testing.assert_array_equal(image, kept[0])
    np.testing.assert_array_equal(label, kept[1])
    assert get_track_meta() == tracked


@pytest.mark.parametrize("name", [n for n in TRANSFORMS if n not in SPATIAL])
@pytest.mark.parametrize("dims", [2, 3])
def test_intensities_change_the_image_alone(name, dims):
    augmentation = build_augmentation([{"name": name, "probability": 1}], dims)
    window = (12,) * dims
    image = np.random.default_rng(1).normal(size=(2, *window)).astype(np.float32)
    label = blobs(window)
    seen, kept = augmentation(image, label, augmentation.draw(window, 5), window)
    assert seen.dtype == np.float32 and seen.shape == image.shape and np.isfinite(seen).all()
    assert not np.allclose(seen, image)
    np.testing.assert_array_equal(kept, label)


def test_flips_draw_each_axis_and_leave_the_others():
    augmentation = build_augmentation([{"name": "flip", "axes": [1]}], 3)
    image = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    draws = [augmentation.draw((2, 3, 4), seed) for seed in range(30)]
    seen = {augmentation(image, image[0], draw, (2, 3, 4))[0].tobytes() for draw in draws}
    assert seen == {image.tobytes(), image[:, :, ::-1].tobytes()}


@pytest.mark.parametrize(
    ("specs", "axes"),
    [
        ([], []),
        ([{"name": "flip"}], [0, 1]),
        ([{"name": "flip", "axes": [1]}, {"name": "rotate"}], [1]),
        ([{"name": "flip", "axes": [1]}, {"name": "flip", "axes": [0]}], [0, 1]),
        ([{"name": "flip", "axes": [0]}, {"name": "flip", "probability": 0}], [0]),
    ],
)
def test_the_axes_that_are_mirrored_are_known(specs, axes):
    assert build_augmentation(specs, 2).mirrored == axes


def test_turns_need_a_square():
    augmentation = build_augmentation([{"name": "rotate90", "probability": 1}], 2)
    oblong = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    assert augmentation(oblong, oblong[0], augmentation.draw((3, 4), 1), (3, 4))[0].shape == (1, 3, 4)
    square = np.arange(9, dtype=np.float32).reshape(1, 3, 3)
    draws = [augmentation.draw((3, 3), seed) for seed in range(40)]
    seen = {augmentation(square, square[0], draw, (3, 3))[0].tobytes() for draw in draws}
    assert seen == {np.rot90(square, k, (1, 2)).tobytes() for k in (1, 2, 3)}


def test_scale_above_one_magnifies():
    augmentation = build_augmentation([{"name": "scale", "range": [2, 2], "probability": 1}], 2)
    label = np.zeros((41, 41), np.uint8)
    label[15:26, 15:26] = 1
    _, kept = augmentation(label[None].astype(np.float32), label, augmentation.draw((41, 41), 0), (41, 41))
    assert 21 <= kept[20].sum() <= 23


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "flp"}, "augmentation.0.name is 'flp'; did you mean 'flip'"),
        ({}, "must be one of flip, rotate90"),
        ({"name": "rotate", "degree": 3}, "did you mean 'degrees'"),
        ({"name": "rotate", "degrees": "far"}, "augmentation.0.degrees is 'far'"),
        ({"name": "flip", "probability": 2}, "augmentation.0.probability is 2"),
        ({"name": "flip", "axes": [2]}, r"have the axes \[0, 1\]"),
        ({"name": "rotate90", "axes": [1, 1]}, "name each once"),
        ({"name": "scale", "range": [2, 1]}, "must not be above the second"),
        ({"name": "elastic", "sigma": [1, 2, 3]}, "3 numbers and the samples have 2 axes"),
    ],
)
def test_mistakes_are_named(spec, message):
    with pytest.raises(ConfigError, match=message):
        build_augmentation([spec], 2)


def test_too_little_read_is_refused():
    augmentation = build_augmentation([{"name": "elastic", "probability": 1}], 2)
    ones = np.ones((1, 20, 20), np.float32)
    with pytest.raises(GridError, match="needs image and label of"):
        augmentation(ones, ones[0], augmentation.draw((20, 20), 0), (20, 20))


def test_a_core_off_the_centre_is_refused():
    augmentation, ones = build_augmentation([], 2), np.ones((1, 20, 20), np.float32)
    with pytest.raises(GridError, match="centre"):
        augmentation(ones, ones[0], augmentation.draw((20, 20), 0), (19, 20))
