"""The same voxels twice: a case that was copied, a label that belongs to another case, a file in the wrong folder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from medseg.datasets.checks.facts import Role
from medseg.datasets.checks.finding import LEAVE_OUT, CaseFacts, Finding
from medseg.datasets.checks.values import is_constant

SameBytes = Callable[[str, str, Role], bool]
"""Whether the files of two cases are the same byte for byte; takes both names and ``image`` or ``label``."""

_BOTH = f"keep one of them: it would be learned from and judged by, {LEAVE_OUT}"
_IMAGES = f"one of them has a label that is not its own, or was copied: mend it {LEAVE_OUT}"
_LABELS = f"one of them has another's label: mend it {LEAVE_OUT}, or name the patient where they are of one"


def find(cases: Sequence[CaseFacts], same_bytes: SameBytes) -> Iterator[Finding]:
    """Over the set, then within each case."""
    by_name = {case.name: case for case in cases}
    images, labels = _groups(cases, _image_key), _groups(cases, _label_key)
    both = set(images) & set(labels)
    for names in images:
        kind = "duplicate_case" if names in both else "duplicate_image"
        words = ("images and labels are", _BOTH) if names in both else ("images are", _IMAGES)
        yield from _finding(kind, names, by_name, words, same_bytes, "image")
    for names in labels:
        several = len({by_name[name].patient for name in names}) > 1
        if names not in both and several:
            yield from _finding("duplicate_label", names, by_name, ("labels are", _LABELS), same_bytes, "label")
    for case in cases:
        yield from _within(case)


def _groups(cases: Sequence[CaseFacts], key_of: Callable[[CaseFacts], str]) -> list[tuple[str, ...]]:
    found: Mapping[str, list[str]] = defaultdict(list)
    for case in cases:
        key = key_of(case)
        if key:
            found[key].append(case.name)
    return [tuple(names) for names in found.values() if len(names) > 1]


def _image_key(case: CaseFacts) -> str:
    """Empty where there is nothing that could be a copy: unreadable files, images of one value."""
    flat = all(map(is_constant, case.values))
    return "" if flat or not case.readable else " ".join(facts.voxels for facts in case.images)


def _label_key(case: CaseFacts) -> str:
    """Empty where the label is empty or of one value, as many may be."""
    values = case.label.values if case.label is not None else None
    return case.label.voxels if case.label is not None and values is not None and values.distinct > 1 else ""


def _finding(
    kind: str,
    names: Sequence[str],
    by_name: Mapping[str, CaseFacts],
    words: tuple[str, str],
    same_bytes: SameBytes,
    role: Role,
) -> Iterator[Finding]:
    cases = [by_name[name] for name in names]
    exact = all(same_bytes(names[0], name, role) for name in names[1:])
    how = "byte for byte" if exact else "voxel by voxel, in files that differ"
    held = " (one of them is a test image)" if any(case.held_out for case in cases) else ""
    several = len({case.patient for case in cases}) > 1
    yield Finding(
        kind,
        "error" if several else "warning",
        f"{len(names)} {words[0]} the same {how}{held}",
        words[1],
        names[0],
        tuple(names[1:]),
        {"byte_for_byte": exact, "patients": len({case.patient for case in cases})},
    )


def _within(case: CaseFacts) -> Iterator[Finding]:
    digests = [facts.voxels for facts in case.images if facts.voxels]
    flat = all(map(is_constant, case.values))
    if flat:
        return
    if case.label is not None and case.label.voxels in digests:
        what = "image and label hold the same voxels"
        yield Finding("label_is_image", "error", what, "one of them is in the wrong folder", case.name)
    if len(set(digests)) < len(digests):
        what = f"{len(digests)} channel files hold only {len(set(digests))} different images"
        yield Finding("duplicate_channel", "warning", what, "see whether one was copied by mistake", case.name)
