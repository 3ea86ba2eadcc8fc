"""Intensities: MONAI's own transforms at the ends of their ranges, laws of the draws, nothing from beyond the image."""

from __future__ import annotations

import monai.transforms as mt
import numpy as np
import pytest
import torch
from monai.networks.layers import gaussian_1d
from scipy import ndimage, stats

from medseg.training.augment import TRANSFORMS, build_augmentation
from medseg.training.intensity import IntensitySpec

INTENSITIES = [name for name, spec in TRANSFORMS.items() if issubclass(spec, IntensitySpec)]
DRAWS = 1000


def picture(dims: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """(C, \\*n), of unequal sides."""
    shape = (channels, 15, 12, 9)[: dims + 1]
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def changed(spec: dict, image: np.ndarray, seed: int = 0) -> np.ndarray:
    augmentation = build_augmentation([{"probability": 1, **spec}], image.ndim - 1)
    window = image.shape[1:]
    return augmentation(image, np.zeros(window, np.uint8), augmentation.draw(window, seed), window)[0]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    ("spec", "oracle"),
    [
        ({"name": "gamma", "range": [1.5, 1.5]}, mt.AdjustContrast(1.5)),
        ({"name": "gamma", "range": [0.7, 0.7], "invert": True}, mt.AdjustContrast(0.7, invert_image=True)),
        (
            {"name": "gamma", "range": [0.7, 0.7], "invert": True, "retain_stats": True},
            mt.AdjustContrast(0.7, invert_image=True, retain_stats=True),
        ),
        ({"name": "multiply", "range": [1.25, 1.25]}, mt.ScaleIntensity(None, None, factor=0.25)),
        ({"name": "contrast", "range": [0.75, 0.75]}, mt.ScaleIntensityFixedMean(-0.25)),
        (
            {"name": "contrast", "range": [1.25, 1.25], "preserve_range": True},
            mt.ScaleIntensityFixedMean(0.25, preserve_range=True),
        ),
    ],
)
def test_values_are_monais(spec, oracle, dims):
    image = picture(dims, 2)
    np.testing.assert_allclose(changed(spec, image), oracle(torch.from_numpy(image)), atol=1e-5)
    alone = changed({**spec, "channel_probability": 1}, image)
    for channel, wanted in zip(alone, image, strict=True):
        np.testing.assert_allclose(channel[None], oracle(torch.from_numpy(wanted[None])), atol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_blur_is_monais_with_the_edge_repeated(dims):
    image = picture(dims)
    seen = changed({"name": "gaussian_blur", "range": [0.9, 0.9]}, image)
    monai = mt.GaussianSmooth(0.9)(torch.from_numpy(image)).numpy()
    inside = (0, *(slice(4, -4) for _ in range(dims)))
    np.testing.assert_allclose(seen[inside], monai[inside], atol=1e-5)
    kernel, wanted = gaussian_1d(torch.tensor(0.9)).numpy(), image[0]
    for axis in range(dims):
        wanted = ndimage.correlate1d(wanted, kernel, axis, mode="nearest")
    np.testing.assert_allclose(seen[0], wanted, atol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_low_resolution_is_torchs_there_and_back(dims):
    image = torch.from_numpy(picture(dims))
    small = [round(n * 0.5) for n in image.shape[1:]]
    coarse = torch.nn.functional.interpolate(image[None], small, mode="nearest-exact")
    linear = {2: "bilinear", 3: "trilinear"}[dims]
    wanted = torch.nn.functional.interpolate(coarse, image.shape[1:], mode=linear)[0]
    np.testing.assert_allclose(changed({"name": "low_resolution", "range": [0.5, 0.5]}, image.numpy()), wanted)


def test_low_resolution_of_a_plane_treats_each_slice_by_itself():
    volume = picture(3, 2)
    seen = changed({"name": "low_resolution", "range": [0.6, 0.6], "axes": [1, 2]}, volume)
    for i in range(volume.shape[1]):
        alone = changed({"name": "low_resolution", "range": [0.6, 0.6]}, np.ascontiguousarray(volume[:, i]))
        np.testing.assert_allclose(seen[:, i], alone, atol=1e-6)


def test_a_coarse_image_stays_where_it_is():
    ramp = np.arange(200, dtype=np.float32)[None, :, None] + np.zeros((1, 1, 4), np.float32)
    shifts = [(changed({"name": "low_resolution"}, ramp, seed) - ramp)[0, 20:-20].mean() for seed in range(60)]
    assert abs(np.mean(shifts)) < 0.1


@pytest.mark.parametrize("name", [n for n in INTENSITIES if n not in ("brightness", "gaussian_noise", "multiply")])
@pytest.mark.parametrize("dims", [2, 3])
def test_nothing_from_beyond_the_image_comes_in(name, dims):
    ones = np.ones((2, 12, 10, 8)[: dims + 1], np.float32)
    np.testing.assert_allclose(changed({"name": name}, ones), 1, atol=1e-4)


@pytest.mark.parametrize("name", INTENSITIES)
def test_channels_are_drawn_together_or_each_by_itself(name):
    one = picture(2)
    twice = np.concatenate([one, one])
    together, alone = (changed({"name": name, **more}, twice) for more in ({}, {"channel_probability": 1}))
    if name != "gaussian_noise":
        np.testing.assert_array_equal(together[0], together[1])
    assert not np.allclose(alone[0], alone[1], atol=1e-4)


@pytest.mark.parametrize(
    "spec", [{"name": "multiply"}, {"name": "gaussian_noise"}, {"name": "low_resolution", "range": [0.5, 0.6]}]
)
def test_a_channels_chance_is_its_own(spec):
    """Of samples (0.4) and of each channel then (0.5): a sample's draw must say nothing about its channels'."""
    augmentation = build_augmentation([{**spec, "probability": 0.4, "channel_probability": 0.5}], 2)
    image, label = np.concatenate([picture(2)[:, :6, :5]] * 2), np.zeros((6, 5), np.uint8)
    draws = [augmentation.draw((6, 5), seed) for seed in range(DRAWS)]
    touched = np.array([(augmentation(image, label, draw, (6, 5))[0] != image).any((1, 2)) for draw in draws])
    for count in touched.sum(0):
        assert stats.binomtest(int(count), DRAWS, 0.2).pvalue > 1e-3
    assert stats.binomtest(int(touched.all(1).sum()), DRAWS, 0.1).pvalue > 1e-3


@pytest.mark.parametrize(
    ("spec", "measure", "law"),
    [
        ({"name": "multiply"}, lambda x, y: (y / x).mean(), stats.uniform(0.75, 0.5)),
        ({"name": "contrast"}, lambda x, y: y.std() / x.std(), stats.uniform(0.75, 0.5)),
        ({"name": "brightness"}, lambda x, y: (y - x).mean(), stats.uniform(-0.3, 0.6)),
        ({"name": "gaussian_noise"}, lambda x, y: (y - x).std(), stats.uniform(0, 0.1)),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("channel_probability", [None, 1.0])
def test_amounts_are_uniform_within_their_range(spec, measure, law, channel_probability):
    augmentation = build_augmentation([{**spec, "probability": 0.8, "channel_probability": channel_probability}], 2)
    image, label = 1 + np.random.default_rng(0).random((1, 24, 24), np.float32), np.zeros((24, 24), np.uint8)
    seen = [augmentation(image, label, augmentation.draw((24, 24), seed), (24, 24))[0] for seed in range(700)]
    amounts = [measure(image, other) for other in seen if not np.array_equal(other, image)]
    assert stats.kstest(amounts, law.cdf).pvalue > 1e-3
