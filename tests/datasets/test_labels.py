"""Values in files and classes of networks are two names of one thing."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.datasets.labels import IGNORED, Labels, one_channel
from medseg.errors import GridError, MedsegError
from medseg.geometry import Box
from medseg.scans.scan import open_scan

DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "i8", "f4", "f8", ">u2", ">i4", ">f4"]


@st.composite
def label_sets(draw: st.DrawFn) -> Labels:
    values = draw(st.lists(st.integers(-(2**31), 2**32 - 1) | st.integers(0, 9), min_size=1, max_size=6, unique=True))
    names = [f"label {n}" for n in range(len(values))]
    order = draw(st.permutations(names)).copy()
    foreground = draw(st.integers(1, len(names)))
    ignored = draw(st.integers(foreground, len(names)))
    chosen, ignore = tuple(order[:foreground]), tuple(order[foreground:ignored])
    return Labels(dict(zip(names, values, strict=True)), chosen, ignore=ignore)


@given(label_sets(), st.integers(0, 2**32 - 1))
def test_what_is_decoded_encodes_to_itself(labels: Labels, seed: int) -> None:
    classes = np.random.default_rng(seed).integers(0, labels.classes + 1, (3, 4, 5))
    values = labels.decode(classes)
    assert values.dtype == labels.dtype and values.shape == classes.shape
    np.testing.assert_array_equal(labels.encode(values), classes)
    np.testing.assert_array_equal(labels.encode(values.astype(np.int64)), classes)
    np.testing.assert_array_equal(labels.encode(values.astype(np.float64)), classes)


@given(label_sets(), st.integers(0, 2**32 - 1))
def test_ignored_labels_are_no_class(labels: Labels, seed: int) -> None:
    """Whatever the type of the file; and no class is written as one of them."""
    values = np.array(list(labels.values.values()), np.int64)
    drawn = np.random.default_rng(seed).choice(values, (3, 4))
    ignored = np.isin(drawn, [labels.values[name] for name in labels.ignore])
    for raw in (drawn, drawn.astype(np.float64), drawn.astype(labels.dtype)):
        classes = labels.encode(raw)
        np.testing.assert_array_equal(classes == IGNORED, ignored)
        assert not ignored.any() or classes.dtype.kind == "i"
    written = labels.decode(np.arange(labels.classes + 1))
    assert not set(written.tolist()) & {labels.values[name] for name in labels.ignore}


def test_the_label_called_ignore_is_ignored_unless_it_is_foreground() -> None:
    values = {"background": 0, "organ": 1, "ignore": 2}
    assert Labels(values).ignore == ("ignore",) and Labels(values).foreground == ("organ",)
    assert Labels(values, ("organ", "ignore")).ignore == ()
    np.testing.assert_array_equal(Labels(values).encode(np.array([0, 1, 2], np.uint8)), [0, 1, IGNORED])
    np.testing.assert_array_equal(Labels({"void": 0, "a": 1, "b": 2}, ("a",), ignore=("void",)).decode([0, 1]), [2, 1])


def test_classes_that_fill_their_type_stay_apart_from_what_is_ignored() -> None:
    for classes, dtype in ((127, np.int8), (128, np.int16), (300, np.int16)):
        labels = Labels({f"n{v}": v for v in range(classes + 1)} | {"ignore": 1000})
        found = labels.encode(np.array([classes, 1000, 0], np.int64))
        assert found.dtype == dtype and found.tolist() == [classes, IGNORED, 0]


def test_instances_may_be_ignored_too() -> None:
    labels = Labels({"background": 0, "cell": 1, "ignore": 65535}, instances=True)
    assert labels.encode(np.array([0, 1, 500, 65535], np.uint16)).tolist() == [0, 1, 1, IGNORED]


def test_json_of_old_packages_has_nothing_to_ignore() -> None:
    old = {"values": {"background": 0, "cell": 255}, "foreground": ["cell"], "instances": False}
    assert Labels.from_dict(old).ignore == ()


@pytest.mark.parametrize(
    ("labels", "ignore", "message"),
    [
        ({"background": 0, "a": 1}, ("b",), "ignored label 'b' is not among the labels"),
        ({"background": 0, "a": 1}, ("background",), "is the background"),
        ({"background": 0, "a": 1, "c": 2}, ("c", "c"), "twice"),
        ({"background": 0, "a": 1}, ("a",), "none of the labels .* is foreground"),
    ],
)
def test_what_cannot_be_ignored(labels: dict[str, int], ignore: tuple[str, ...], message: str) -> None:
    with pytest.raises(MedsegError, match=message):
        Labels(labels, ignore=ignore)


@given(label_sets())
def test_json_keeps_labels(labels: Labels) -> None:
    assert Labels.from_dict(json.loads(json.dumps(labels.to_dict()))) == labels


@given(label_sets())
def test_the_dtype_is_the_smallest_that_fits(labels: Labels) -> None:
    known = [*labels.values.values(), labels.background_value]
    assert all(np.iinfo(labels.dtype).min <= v <= np.iinfo(labels.dtype).max for v in known)
    if labels.dtype.itemsize > 1:
        smaller = np.dtype(f"{'i' if min(known) < 0 else 'u'}{labels.dtype.itemsize // 2}")
        assert not all(np.iinfo(smaller).min <= v <= np.iinfo(smaller).max for v in known)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_of_file(dtype: str) -> None:
    raw = np.array([[0, 7], [99, 0]], dtype)
    classes = Labels({"background": 0, "b": 99, "a": 7}).encode(raw)
    assert classes.dtype == np.uint8
    np.testing.assert_array_equal(classes, [[0, 2], [1, 0]])


def test_more_classes_than_a_byte() -> None:
    labels = Labels({f"n{v}": v for v in range(300)})
    assert labels.encode(np.array([299])).dtype == np.uint16 and labels.encode(np.array([299]))[0] == 299


def test_membranes_that_are_zero() -> None:
    labels = Labels({"membrane": 0, "cell": 255}, ("membrane",))
    raw = np.array([0, 255, 0], np.uint8)
    np.testing.assert_array_equal(labels.encode(raw), [1, 0, 1])
    np.testing.assert_array_equal(labels.decode(np.array([1, 0, 1])), raw)
    assert labels.background_value == 255 and labels.dtype == np.uint8


@pytest.mark.parametrize(
    ("values", "foreground", "background"),
    [
        ({"membrane": 0, "cell": 255}, ("cell",), 0),
        ({"background": 3, "a": 0, "b": 1}, ("a", "b"), 3),
        ({"lesion": 1}, ("lesion",), 0),
        ({"a": 1, "b": 2, "background": 0}, ("a", "b"), 0),
    ],
)
def test_foreground_by_default(values: dict[str, int], foreground: tuple[str, ...], background: int) -> None:
    labels = Labels(values)
    assert labels.foreground == foreground and labels.background_value == background


@pytest.mark.parametrize(
    ("values", "foreground", "background"),
    [
        ({"a": 0, "b": 1, "c": 2}, ("a",), 1),
        ({"background": 9, "b": 1, "c": 2}, ("c",), 9),
        ({"a": 0}, ("a",), 1),
        ({"a": 0, "b": 1}, ("a", "b"), 2),
    ],
)
def test_what_is_written_where_no_class_is(
    values: dict[str, int], foreground: tuple[str, ...], background: int
) -> None:
    assert Labels(values, foreground).background_value == background


def test_instances_are_one_class() -> None:
    labels = Labels({"background": 0, "cell": 1}, instances=True)
    np.testing.assert_array_equal(labels.encode(np.array([0, 1, 70000], np.int32)), [0, 1, 1])
    with pytest.raises(MedsegError, match="one foreground label"):
        Labels({"background": 0, "a": 1, "b": 2}, instances=True)


def test_undeclared_values_are_listed_with_the_file() -> None:
    labels = Labels({"background": 0, "lesion": 1})
    for dtype in ("u1", "i8", "f4"):
        with pytest.raises(
            MedsegError, match=r"a\.png holds the undeclared label values 3, 9: .*background: 0, lesion: 1"
        ):
            labels.encode(np.array([0, 9, 3, 9, 1], dtype), "a.png")


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, -np.inf])
def test_values_that_are_no_whole_numbers(value: float) -> None:
    with pytest.raises(MedsegError, match=f"a.nii holds {value}, which is no label"):
        Labels({"a": 1}).encode(np.array([0, value, 1]), "a.nii")


@pytest.mark.parametrize(
    ("values", "foreground", "message"),
    [
        ({}, (), "empty"),
        ({"a": 1, "b": 1}, (), "share the value 1"),
        ({"a": 1.5}, (), "integer"),
        ({"a": True}, (), "integer"),
        ({"a": 2**40}, (), "integer"),
        ({"": 1}, (), "no name"),
        ({"background": 0}, (), "none of the labels"),
        ({"liver": 1}, ("livr",), "did you mean 'liver'"),
        ({"a": 1}, ("a", "a"), "twice"),
    ],
)
def test_labels_that_cannot_be(values: dict[str, int], foreground: tuple[str, ...], message: str) -> None:
    with pytest.raises(MedsegError, match=message):
        Labels(values, foreground)


@pytest.mark.parametrize(
    "content",
    [None, [], {}, {"values": [1]}, {"values": {"a": 1}, "x": 1}, {"values": {"a": 1}, "foreground": "a"}],
)
def test_json_that_is_no_labels(content: object) -> None:
    with pytest.raises(MedsegError):
        Labels.from_dict(content)


def test_grey_saved_as_colour_is_one_channel() -> None:
    grey = np.array([[0, 1], [1, 0]], np.uint8)
    alpha = np.full((2, 2), 255, np.uint8)
    for stack in ([grey], [grey, alpha], [grey] * 3, [grey, grey, grey, alpha]):
        np.testing.assert_array_equal(one_channel(np.stack(stack), "a.png"), grey)
        np.testing.assert_array_equal(Labels({"a": 1}).read(open_scan(np.stack(stack)), Box.of((2, 2))), grey)
    with pytest.raises(GridError, match="3 channels that differ"):
        one_channel(np.stack([grey, grey, 1 - grey]), "a.png")
