"""Labels are merged, renamed, dropped, ignored, or overlap: what files hold, what is learned, what is written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.datasets.declared import declared
from medseg.datasets.labels import IGNORED, Labels
from medseg.errors import MedsegError

BRATS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}
KITS = {"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumor": 2}


@pytest.mark.parametrize(
    ("labels", "options", "file", "classes", "written"),
    [
        ({"background": 0, "tumour": [2, 1], "organ": 3}, {}, [0, 1, 2, 3], [0, 1, 1, 2], [0, 2, 3]),
        ({"background": [0, 4], "organ": 3}, {}, [0, 4, 3], [0, 0, 1], [0, 3]),
        ({"background": 0, "organ": 3, "vessel": 4}, {"foreground": ["organ"]}, [0, 3, 4], [0, 1, 0], [0, 3]),
        ({"background": 0, "organ": 3, "ignore": [9, 255]}, {}, [0, 3, 9, 255], [0, 1, IGNORED, IGNORED], [0, 3]),
        ({"background": 0, "a": 1, "b": [2, 5]}, {"ignore": ["b"]}, [0, 1, 2, 5], [0, 1, IGNORED, IGNORED], [0, 1]),
    ],
    ids=["merge", "drop", "leave out", "ignore", "ignore by name"],
)
def test_maps_of_labels(labels: Any, options: Any, file: list[int], classes: list[int], written: list[int]) -> None:
    found = declared(labels, **options)
    for dtype in (np.int64, np.uint16, np.float32):
        np.testing.assert_array_equal(found.encode(np.array(file, dtype)), classes)
    assert found.decode(np.arange(found.classes + 1)).tolist() == written
    assert found.targets == {name: (number,) for number, name in enumerate(found.foreground, 1)}
    assert Labels.from_dict(found.to_dict()) == found


def test_values_that_nobody_has_are_still_refused() -> None:
    with pytest.raises(MedsegError, match=r"undeclared label value 7: labels are background: 0, tumour: \[1, 2\]"):
        declared({"background": 0, "tumour": [1, 2]}).encode(np.array([0, 7]))


@pytest.mark.parametrize(
    ("labels", "order", "targets", "written"),
    [
        (BRATS, None, {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}, [1, 2, 3]),
        (BRATS, [1, 2, 3], {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}, [1, 2, 3]),
        (KITS, None, {"kidney": (1, 2, 3), "masses": (3, 2), "tumor": (2,)}, [1, 3, 2]),
        (KITS, [1, 3, 2], {"kidney": (1, 2, 3), "masses": (3, 2), "tumor": (2,)}, [1, 3, 2]),
        ({"background": 0, "a": [1, 2], "b": [2, 3]}, None, {"a": (1, 2), "b": (2, 3)}, [1, 2]),
        ({"background": 0, "a": 1, "b": 2}, [1, 2], {"a": (1,), "b": (2,)}, [1, 2]),
    ],
)
def test_regions_are_sets_of_the_values_classes(labels: Any, order: Any, targets: Any, written: list[int]) -> None:
    found = declared(labels, order=order)
    assert found.targets == targets
    assert found.file_values[list(found.written)].tolist() == written
    assert Labels.from_dict(found.to_dict()) == found
    values = sorted({v for some in labels.values() for v in (some if isinstance(some, list) else [some])})
    for name, classes in found.targets.items():
        held = labels[name] if isinstance(labels[name], list) else [labels[name]]
        np.testing.assert_array_equal(np.isin(found.encode(np.array(values)), classes), np.isin(values, held))


@given(st.permutations(["whole", "core", "enhancing"]), st.integers(1, 3))
def test_the_regions_that_are_wanted_are_channels_in_their_order(order: list[str], few: int) -> None:
    chosen = [name for name in BRATS if name in order[:few]]
    found = declared({**BRATS, "ignore": 9}, foreground=chosen)
    assert list(found.targets) == chosen and found.ignore == ("ignore",)
    classes = found.encode(np.array([0, 1, 2, 3, 9]))
    assert classes[0] == 0 and classes[-1] == IGNORED
    for name in chosen:
        held = BRATS[name] if isinstance(BRATS[name], list) else [BRATS[name]]
        np.testing.assert_array_equal(np.isin(classes[:4], found.targets[name]), np.isin([0, 1, 2, 3], held))


@pytest.mark.parametrize("name", ["whole", "core", "enhancing"])
def test_a_region_alone_is_one_label_of_the_same_files(name: str) -> None:
    alone = declared({**BRATS, "ignore": [9, 8]}).region(name)
    held = BRATS[name] if isinstance(BRATS[name], list) else [BRATS[name]]
    values = np.array([0, 1, 2, 3])
    np.testing.assert_array_equal(alone.encode(values), np.isin(values, held))
    assert alone.foreground == (name,) and alone.encode(np.array([8, 9])).tolist() == [IGNORED, IGNORED]


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ({"core": [2, 3], "whole": [1, 2, 3]}, {}, r"region 'core' has no value .* name larger regions first"),
        (BRATS, {"order": [1, 2]}, r"regions_class_order has 2 values for the regions whole, core, enhancing"),
        (BRATS, {"order": [1, 1, 3]}, r"regions_class_order has 1 for 'core', whose values are \[2, 3\]"),
        ({**BRATS, "background": [0, 3]}, {}, r"region 'whole' has the value 3 of 'background'"),
        (BRATS, {"foreground": ["hole"]}, r"foreground 'hole' is none of the regions .* did you mean 'whole'"),
        (BRATS, {"instances": True}, r"instances: true goes with one foreground label"),
        ({"background": 0, "a": []}, {}, r"label 'a' has no value"),
        ({"background": 0, "a": [1, "2"]}, {}, r"label 'a' has value '2'"),
        ({"background": 0, "a": [1, 2.0]}, {}, r"label 'a' has value 2.0"),
    ],
)
def test_what_cannot_be_is_refused(labels: Any, options: Any, message: str) -> None:
    with pytest.raises(MedsegError, match=message):
        declared(labels, **options)


@pytest.mark.parametrize(
    "change",
    [
        {"merged": {"b": [1]}},
        {"merged": [1]},
        {"merged": {"a": [0]}},
        {"regions": {"r": ["b"]}},
        {"regions": {"r": []}},
    ],
)
def test_damaged_json_is_refused(change: Any) -> None:
    with pytest.raises(MedsegError):
        Labels.from_dict({"values": {"background": 0, "a": 1}, "foreground": ["a"], **change})
