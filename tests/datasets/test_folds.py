"""Folds: whole patients, even sizes, every class everywhere, the same for the same data, and hardly moved by more."""

import math
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.datasets.folds import Member, make_folds
from medseg.errors import ConfigError

CLASSES = "abc"


@st.composite
def data_sets(draw, patients=(2, 14), cases=(1, 4)):
    """Cases of patients; a patient's have classes of various sizes."""
    members = []
    for patient in range(draw(st.integers(*patients))):
        for case in range(draw(st.integers(*cases))):
            sizes = {name: draw(st.floats(1, 1e6)) for name in CLASSES if draw(st.booleans())}
            members.append(Member(f"p{patient}_{case}", f"p{patient}", sizes))
    return members


def fold_of(folds):
    return {name: number for number, names in enumerate(folds) for name in names}


def patients_with(members, name):
    return {member.patient for member in members if member.sizes.get(name, 0) > 0}


def lacking(members, assigned, count):
    """The folds that lack a class which enough patients have."""
    found = []
    for name in CLASSES:
        having = patients_with(members, name)
        if len(having) >= count:
            homes = {assigned[member.name] for member in members if member.patient in having and name in member.sizes}
            found += [(name, fold) for fold in range(count) if fold not in homes]
    return found


def spread(members, folds):
    sizes = [len(names) for names in folds]
    largest = max(sum(m.patient == other.patient for m in members) for other in members)
    return max(sizes) - min(sizes), largest, min(sizes)


@given(data_sets(), st.integers(2, 5), st.integers(0, 3))
def test_patients_are_whole_and_sizes_even(members, count, seed):
    if len({member.patient for member in members}) < count:
        with pytest.raises(ConfigError, match="do not fill"):
            make_folds(members, count, seed)
        return
    folds = make_folds(members, count, seed)
    assigned = fold_of(folds)
    assert sorted(assigned) == sorted(member.name for member in members)
    assert sum(map(len, folds)) == len(members)
    for patient in {member.patient for member in members}:
        assert len({assigned[member.name] for member in members if member.patient == patient}) == 1
    difference, largest, smallest = spread(members, folds)
    assert difference <= largest
    assert smallest > 0


@given(data_sets(patients=(2, 7)), st.integers(2, 3), st.randoms(use_true_random=False))
def test_folds_are_a_function_of_seed_and_cases_not_of_their_order(members, count, random):
    if len({member.patient for member in members}) < count:
        return
    shuffled = random.sample(members, len(members))
    assert make_folds(members, count, 5) == make_folds(shuffled, count, 5)


@settings(max_examples=40)
@given(data_sets(patients=(3, 7), cases=(1, 1)), st.integers(2, 3))
def test_a_class_is_in_every_fold_wherever_that_is_feasible(members, count):
    """Beside all ways to divide so few patients evenly."""
    names = [member.name for member in members]
    found = lacking(members, fold_of(make_folds(members, count)), count)
    ways = (dict(zip(names, way, strict=True)) for way in product(range(count), repeat=len(names)))
    even = (way for way in ways if _even(list(way.values()), count))
    assert len(found) == min(len(lacking(members, way, count)) for way in even)


def _even(homes, count):
    sizes = [homes.count(fold) for fold in range(count)]
    return max(sizes) - min(sizes) <= 1


def test_a_rare_class_and_a_large_one_are_dealt_evenly():
    """Three patients of thirty have it; the sizes of the other come in two kinds."""
    members = [
        Member(f"p{n}", f"p{n}", {"big": 1e6 if n % 2 else 1.0} | ({"rare": 5.0} if n in (4, 9, 21) else {}))
        for n in range(30)
    ]
    for seed in range(5):
        folds = make_folds(members, 3, seed)
        assert sorted(map(len, folds)) == [10, 10, 10]
        by_name = {member.name: member for member in members}
        assert [sum("rare" in by_name[name].sizes for name in names) for names in folds] == [1, 1, 1]
        large = [sum(by_name[name].sizes["big"] > 1 for name in names) for names in folds]
        assert max(large) - min(large) <= 2


def test_seeds_differ():
    members = [Member(f"p{n}", f"p{n}", {}) for n in range(12)]
    assert len({make_folds(members, 3, seed) for seed in range(6)}) > 1


def test_a_new_patient_moves_few():
    """Dealing in turn by class and size would move nearly half of them."""
    members = [Member(f"p{n}", f"p{n}", {"a": 1.0 + n % 7} | ({"b": 2.0} if n % 3 else {})) for n in range(60)]
    moved = []
    for n in range(6):
        before = fold_of(make_folds(members[: 54 + n], 5))
        after = fold_of(make_folds(members[: 55 + n], 5))
        moved.append(sum(after[name] != fold for name, fold in before.items()) / len(before))
    assert sum(moved) / len(moved) < 0.3


def test_one_fold_or_more_folds_than_patients_are_refused():
    members = [Member(f"p{n}_{m}", f"p{n}", {}) for n in range(3) for m in range(4)]
    with pytest.raises(ConfigError, match="2 or more"):
        make_folds(members, 1)
    with pytest.raises(ConfigError, match=r"3 patients \(12 cases\) do not fill 4 folds"):
        make_folds(members, 4)
    assert [len(names) for names in make_folds(members, 3)] == [4, 4, 4]


def test_names_come_in_natural_order():
    members = [Member(f"c{n}", f"c{n}", {}) for n in range(25)]
    for names in make_folds(members, 2):
        numbers = [int(name[1:]) for name in names]
        assert all(a < b for a, b in pairwise(numbers))
        assert math.isclose(len(names), 12.5, abs_tol=0.5)
