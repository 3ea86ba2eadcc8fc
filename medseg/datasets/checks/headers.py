"""Headers that leave open where voxels lie, or say it twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from medseg.datasets.checks.facts import Facts
from medseg.datasets.checks.finding import CaseFacts, Finding, plural
from medseg.datasets.checks.grids import second_place
from medseg.datasets.checks.pairs import files_of


def find(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Of the set, the files without a unit; of each file, a second place that is not its first."""
    yield from _units(cases)
    for case in cases:
        for which, facts in files_of(case):
            yield from _second(case.name, which, facts)


def _units(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    images = [facts for case in cases for facts in case.images if facts.grid is not None]
    silent = [facts for facts in images if facts.unit_assumed]
    if silent:
        numbers = {"files": len(silent), "of": len(images)}
        what = f"no unit is stated in {len(silent):,} of {plural(len(images), 'image file')}: spacings are read as mm"
        yield Finding("unit", "warning", what, "write the unit into their headers (xyzt_units)", numbers=numbers)


def _second(name: str, which: str, facts: Facts) -> Iterator[Finding]:
    apart = None if facts.second is None or facts.grid is None else second_place(facts.grid, np.array(facts.second))
    if apart is not None:
        mirrored = "; it is mirrored" if apart.mirrored else ""
        what = (
            f"the {which}'s qform lies up to {apart.apart_mm:.3g} mm ({apart.voxels:.2g} voxels) away from its sform, "
            f"which is used{mirrored}"
        )
        remedy = "see which is right, and write it into both"
        yield Finding("placed_twice", "warning", what, remedy, name, numbers={"file": which, **vars(apart)})
