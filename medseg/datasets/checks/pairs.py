"""Files that are missing, have no counterpart, or cannot be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from medseg.datasets.checks.facts import Facts
from medseg.datasets.checks.finding import LEAVE_OUT, CaseFacts, Finding, plural
from medseg.datasets.checks.survey import MISSING


def find(cases: Sequence[CaseFacts]) -> Iterator[Finding]:
    """What lacks, case by case; where no image has a label, one finding says it of the set."""
    lone_images = [case.name for case in cases if case.images and case.label is None and not case.held_out]
    lone_labels = [case.name for case in cases if not case.images]
    if any(case.images and case.label is not None for case in cases):
        for name in lone_images:
            yield Finding("no_label", "error", "an image without a label", f"add the label {LEAVE_OUT}", name)
        for name in lone_labels:
            yield Finding("no_image", "error", "a label without an image", f"add the image {LEAVE_OUT}", name)
    elif lone_images or lone_labels:
        yield _strangers(lone_images, lone_labels)
    for case in cases:
        for which, facts in files_of(case):
            if facts.error:
                yield _broken(case.name, which, facts.error)


def _strangers(images: Sequence[str], labels: Sequence[str]) -> Finding:
    numbers = {"images": len(images), "labels": len(labels)}
    if not labels:
        what = f"none of {plural(len(images), 'image')} has a label"
        return Finding("no_label", "error", what, "add the labels", numbers=numbers)
    what = (
        f"no image has a label of its name: {plural(len(images), 'image')} and {plural(len(labels), 'label')}, "
        "the first of each called so"
    )
    remedy = "give both files of a case the same name, or list them in a manifest"
    return Finding("no_label", "error", what, remedy, [*images, *labels][0], (*labels[:1],), numbers)


def files_of(case: CaseFacts) -> Iterator[tuple[str, Facts]]:
    """The facts of each file, with what it is to the case."""
    several = len(case.images) > 1
    for number, facts in enumerate(case.images, 1):
        yield (f"image file {number}" if several else "image"), facts
    if case.label is not None:
        yield "label", case.label


def _broken(name: str, which: str, error: str) -> Finding:
    error = error.removeprefix(f"{name}: ")
    numbers = {"file": which, "error": error}
    if error == MISSING:
        return Finding("missing_file", "error", f"the {which} {error}", f"add it {LEAVE_OUT}", name, (), numbers)
    return Finding(
        "unreadable", "error", f"the {which} cannot be read: {error}", f"get it anew {LEAVE_OUT}", name, (), numbers
    )
