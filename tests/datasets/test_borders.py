import json
import pickle

import numpy as np
import pytest
import scipy.ndimage as ndi
from hypothesis import given
from hypothesis import strategies as st
from skimage.segmentation import find_boundaries

from medseg import Box, open_scan
from medseg.datasets.borders import Bordered, bordered_labels
from medseg.datasets.labels import IGNORED, Border, Labels
from medseg.errors import ConfigError, GridError, MedsegError

SHAPES = st.one_of(st.tuples(*[st.integers(1, 20)] * 2), st.tuples(*[st.integers(1, 10)] * 3))


def objects(shape, seed):
    """Instances of which many touch: a nearest-seed partition with some cells taken out."""
    rng = np.random.default_rng(seed)
    points = np.stack([rng.integers(0, n, 6) for n in shape], 1)
    apart = ((np.indices(shape)[None] - points.reshape(6, -1, *[1] * len(shape))) ** 2).sum(1)
    return rng.choice([0, 1, 2, 70, 300], 6)[apart.argmin(0)].astype(np.int32)


def read(numbers, width, box=None):
    scan = Bordered(open_scan(numbers[None]), Border(width))
    return scan.read(box or Box.of(numbers.shape))[0]


@given(shape=SHAPES, seed=st.integers(0, 99))
def test_width_one_is_scikit_images_inner_boundary(shape, seed):
    numbers = objects(shape, seed)
    np.testing.assert_array_equal(
        read(numbers, (1,)) == 2, find_boundaries(numbers, connectivity=len(shape), mode="inner")
    )


@given(shape=SHAPES, seed=st.integers(0, 99), data=st.data())
def test_what_is_left_inside_is_each_object_eroded(shape, seed, data):
    numbers = objects(shape, seed)
    width = data.draw(st.tuples(*[st.integers(0, 3)] * len(shape)))
    found = read(numbers, width)
    inside = np.zeros(shape, bool)
    for number in np.unique(numbers[numbers > 0]):
        box = np.ones([2 * w + 1 for w in width])
        inside |= ndi.binary_erosion(numbers == number, box, border_value=1)
    np.testing.assert_array_equal(found == 1, inside)
    np.testing.assert_array_equal(found > 0, numbers > 0)


@given(shape=SHAPES, seed=st.integers(0, 99), width=st.integers(1, 3), data=st.data())
def test_any_box_is_that_of_the_whole(shape, seed, width, data):
    numbers = objects(shape, seed)
    start = [data.draw(st.integers(0, n - 1)) for n in shape]
    box = Box(tuple(start), tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)))
    np.testing.assert_array_equal(read(numbers, (width,), box), read(numbers, (width,))[box.slices])


def test_the_labels_are_those_of_what_is_read():
    raw = Labels({"background": 0, "cell": 1, "ignore": 255}, ("cell",), True)
    drawn = Border((1,), (255,))
    labels = bordered_labels(raw, "membrane", drawn)
    assert Labels.from_dict(json.loads(json.dumps(labels.to_dict()))) == labels and labels.border == drawn
    assert labels.foreground == ("cell", "membrane")
    assert not labels.instances
    numbers = np.array([[7, 7, 7, 0, 255, 255]], np.int32)
    scan = Bordered(open_scan(numbers[None]), drawn)
    np.testing.assert_array_equal(labels.read(scan, Box.of((1, 6))), [[1, 1, 2, 0, IGNORED, IGNORED]])
    again = pickle.loads(pickle.dumps(scan))
    np.testing.assert_array_equal(again.read(Box.of((1, 6))), scan.read(Box.of((1, 6))))


def test_mistakes():
    with pytest.raises(ConfigError, match=r"data\.instances: true"):
        bordered_labels(Labels({"background": 0, "cell": 1}), "border", Border((1,)))
    with pytest.raises(ConfigError, match="another name"):
        bordered_labels(Labels({"background": 0, "cell": 1}, ("cell",), True), "cell", Border((1,)))
    with pytest.raises(GridError, match="2 numbers"):
        Bordered(open_scan(np.zeros((1, 4, 4, 4), np.int32)), Border((1, 2)))


@pytest.mark.parametrize(
    "border", [3, {}, {"width": []}, {"width": [-1]}, {"width": [1.5]}, {"width": [1], "ignored": 2}]
)
def test_a_border_that_is_none_is_refused(border):
    values = {"background": 0, "cell": 1, "edge": 2}
    with pytest.raises(MedsegError, match="labels: border"):
        Labels.from_dict({"values": values, "border": border})
    with pytest.raises(MedsegError, match="labels with a border are two"):
        Labels.from_dict({"values": {"background": 0, "cell": 1}, "border": {"width": [1]}})
