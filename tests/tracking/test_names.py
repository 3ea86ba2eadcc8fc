"""Laws of names: MLflow takes them, and distinct ones stay distinct."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from medseg.quiet import quiet_mlflow
from medseg.tracking.names import NAME_LENGTH, PARAM_LENGTH, TAG_NAME_LENGTH, Names, clean, cut, flat

ODD = st.text(alphabet=st.sampled_from("ab/. ..-_:+*(é字\n\x00"), max_size=12)
LABELS = st.one_of(ODD, st.text(max_size=20), st.text("ab/", min_size=230, max_size=300))


def accepted(name: str) -> bool:
    """MLflow's own answer, and that no name holds a character that only other systems refuse."""
    quiet_mlflow()
    from mlflow.exceptions import MlflowException
    from mlflow.utils.validation import _validate_metric, _validate_param, _validate_tag

    try:
        _validate_metric(name, 1.0, 0, 0)
        _validate_param(name, "1")
        _validate_tag(f"changed.{name}", "1")
    except MlflowException:
        return False
    return ":" not in name and "\n" not in name


@given(LABELS)
@example("")
@example("..")
@example("a/../b")
@example("/a//b/")
@example("a\n")
@example("\ud800")
@example(" ")
@example("x" * 1000)
def test_every_name_becomes_one_that_mlflow_takes(label: str) -> None:
    name = clean(f"val/dice/{label}")
    assert accepted(name) and accepted(clean(label))
    assert len(name) <= NAME_LENGTH and len(f"changed.{name}") <= TAG_NAME_LENGTH


@given(st.lists(LABELS, unique=True, max_size=30))
@example(["a+b", "a*b", "a_b"])
@example(["a" * 400, "a" * 401])
def test_distinct_names_stay_distinct_and_keep_their_name(labels: list[str]) -> None:
    names = Names()
    first = [names.of(label) for label in labels]
    assert len(set(first)) == len(labels)
    assert all(map(accepted, first))
    assert [names.of(label) for label in reversed(labels)] == first[::-1]


@given(st.lists(LABELS, unique=True, max_size=10), st.randoms())
def test_known_names_are_the_same_in_any_order(labels: list[str], random: Any) -> None:
    names = Names()
    before = {names.of(label): label for label in labels}
    again = list(labels)
    random.shuffle(again)
    later = Names(before)
    assert {later.of(label): label for label in again} == before


@given(st.from_regex(r"[a-z][a-z0-9_ ]{0,10}[a-z]", fullmatch=True))
def test_good_names_stay_as_they_are(label: str) -> None:
    assert Names().of(f"val/dice/{label}") == f"val/dice/{label}"


def test_a_nested_config_becomes_flat_params() -> None:
    config = {
        "training": {"batch": 4, "rate": 1e-3, "amp": True},
        "augmentation": [{"name": "flip"}, {"name": "noise", "sigma": [0, 0.1]}],
        "labels": {"grade 3+": 3},
        "empty": {},
        "none": None,
        "list": [],
    }
    assert flat(config) == {
        "training.batch": "4",
        "training.rate": "0.001",
        "training.amp": "true",
        "augmentation.0.name": "flip",
        "augmentation.1.name": "noise",
        "augmentation.1.sigma": "[0, 0.1]",
        "labels.grade 3_": "3",
        "empty": "{}",
        "none": "null",
        "list": "[]",
    }


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD, inner, max_size=3),
        max_leaves=12,
    )
)
def test_any_config_becomes_params_that_mlflow_takes(value: Any) -> None:
    params = flat({"config": value, "long": "x" * 10_000})
    assert all(map(accepted, params))
    assert all(len(text) <= PARAM_LENGTH and text.encode() for text in params.values() if text)


def test_long_values_are_cut_visibly() -> None:
    assert cut("abc", 3) == "abc"
    assert cut("abcdefgh", 6) == "abc..."
    assert len(flat({"train": [f"case{i}" for i in range(5000)]})["train"]) == PARAM_LENGTH
    assert json.loads(flat({"train": ["a", "b"]})["train"]) == ["a", "b"]
