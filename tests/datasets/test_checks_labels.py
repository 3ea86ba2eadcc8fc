"""What a data set's overview calls the values of its label files."""

from __future__ import annotations

from medseg.datasets.checks.facts import Facts, Values
from medseg.datasets.checks.finding import CaseFacts, Expected
from medseg.datasets.checks.report import Report
from medseg.datasets.checks.table import overview
from medseg.datasets.checks.values import find
from medseg.datasets.declared import declared

NESTED = declared({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "ring": 3, "ignore": 9})


def cases(**counts: dict[int, int]) -> tuple[CaseFacts, ...]:
    images = (Facts(),)
    return tuple(CaseFacts(name, name, images, Facts(values=Values(some))) for name, some in counts.items())


def test_a_value_of_regions_is_called_as_those_that_it_is_in() -> None:
    report = Report("set", "folders", cases(a={0: 90, 1: 5, 2: 3, 9: 2}), (), NESTED)
    (*_, line) = overview(report)
    assert line == (
        "labels: 0 background 90.0%, 1 whole 5.0%, 2 whole and core 3.0%, 3 whole and core and ring 0.0%, 9 ignore 2.0%"
    )


def test_a_region_without_a_voxel_of_its_own_is_named() -> None:
    (found,) = find(cases(a={0: 90, 1: 5, 2: 3}), Expected(NESTED))
    assert found.check == "absent_class" and "'whole and core and ring' (value 3)" in found.what
