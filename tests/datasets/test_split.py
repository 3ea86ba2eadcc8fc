"""A split divides the cases, keeps patients together, and depends on the seed alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.datasets.cases import Case
from medseg.datasets.split import Split, make_split, read_split
from medseg.errors import MedsegError

NAMES = [f"c{n}" for n in range(10)]


def cases(patients: list[int]) -> list[Case]:
    return [Case(f"c{n}", Path(f"c{n}.tif"), None, f"p{p}") for n, p in enumerate(patients)]


@given(
    st.lists(st.integers(0, 8), min_size=1, max_size=30),
    st.floats(0.05, 0.5),
    st.floats(0.05, 0.4) | st.just(0.0),
    st.integers(0, 99),
)
def test_fractions_divide_patients(patients: list[int], validation: float, test: float, seed: int) -> None:
    given_cases = cases(patients)
    try:
        split = make_split(given_cases, validation=validation, test=test, seed=seed)
    except MedsegError as error:
        assert "no case is left" in str(error)
        return
    names = [*split.train, *split.validation, *split.test]
    assert sorted(names) == sorted(case.name for case in given_cases)
    owner = {case.name: case.patient for case in given_cases}
    parts = [{owner[name] for name in part} for part in (split.train, split.validation, split.test)]
    assert len(set.union(*parts)) == sum(map(len, parts))
    assert split.train and split.validation and bool(split.test) == (test > 0)
    assert make_split(reversed(given_cases), validation=validation, test=test, seed=seed) == split
    assert Split.from_dict(json.loads(json.dumps(split.to_dict()))) == split


def test_fractions_are_met_where_patients_are_single() -> None:
    split = make_split(NAMES, validation=0.2, test=0.3, seed=1)
    assert (len(split.train), len(split.validation), len(split.test)) == (5, 2, 3)
    assert split != make_split(NAMES, validation=0.2, test=0.3, seed=2)


def test_a_new_patient_moves_at_most_itself_into_the_draw() -> None:
    before = make_split(NAMES[:9], validation=0.3, seed=0).validation
    after = make_split(NAMES, validation=0.3, seed=0).validation
    assert len(set(after) - set(before)) <= 1


def test_named_parts_are_taken_as_named() -> None:
    split = make_split(NAMES, validation=["c2", "c1"], test=["c3"], seed=0)
    assert split.validation == ("c1", "c2") and split.test == ("c3",) and len(split.train) == 7
    split = make_split(NAMES, train=["c0"], validation=0.2, seed=0)
    assert split.train == ("c0",) and len(split.validation) == 2 and not split.test


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation": ["c11"]}, "which is none of the 10 cases; did you mean"),
        ({"validation": []}, "no case is left for validation"),
        ({"validation": NAMES}, "no case is left for train"),
        ({"validation": ["c1", "c1"]}, "twice"),
        (
            {"validation": ["c1"], "test": ["c1"]},
            "a case belongs to one part|is in validation and in test|of one patient",
        ),
        ({"validation": 1.0}, "must lie between 0 and 1"),
        ({"validation": 0.0}, "must lie between 0 and 1"),
        ({"validation": float("nan")}, "must lie between 0 and 1"),
        ({"validation": "c1"}, "must be a fraction or a list"),
    ],
)
def test_splits_that_cannot_be(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(MedsegError, match=message):
        make_split(NAMES, seed=0, **arguments)  # type: ignore[arg-type]


def test_one_patient_cannot_be_divided() -> None:
    with pytest.raises(MedsegError, match="no case is left for train"):
        make_split(cases([0, 0, 0]), validation=0.3, seed=0)
    with pytest.raises(MedsegError, match="of one patient"):
        make_split(cases([0, 0, 1]), validation=["c0"], seed=0)


def test_a_file_that_is_no_split(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    for content, message in (
        ("[]", "an object"),
        ('{"trian": []}', "did you mean 'train'"),
        ('{"train": [1]}', "list of case names"),
    ):
        path.write_text(content)
        with pytest.raises(MedsegError, match=message):
            read_split(path)
    path.write_text('{"train": ["a"], "validation": ["b"]}')
    assert read_split(path) == Split(("a",), ("b",))
