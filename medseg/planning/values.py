"""What label files hold where nobody has said so: the values that were found become labels of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from medseg.datasets.checks.facts import Values
from medseg.errors import MedsegError

MOST_LABELS = 64
"""More values than this are no classes that somebody drew."""
SEVERAL = 4
"""Objects that some case has at least where label files number them."""
Found = tuple[dict[str, Any], str]
"""Keys of a config's data section, and why."""


def labels_found(labelled: Sequence[Values]) -> Found:
    """Labels for the values of all label files.

    Raises:
        MedsegError: where they are no whole numbers, all the same, or too many to be classes.
    """
    if any(values.fractions for values in labelled):
        raise MedsegError("label files hold values that are no whole numbers: round or threshold them, then plan again")
    found = sorted({value for values in labelled for value in values.counts})
    if len(found) < 2:
        raise MedsegError(f"all label files hold the one value {found}: there is nothing to segment")
    if _numbers_objects(labelled):
        why = (
            f"label files number their objects, up to {found[-1]} in a case: each value but 0 is an object of one kind"
        )
        return {"labels": {"background": 0, "object": 1}, "instances": True}, why
    if len(found) > MOST_LABELS:
        raise MedsegError(
            f"label files hold {len(found)} values, from {found[0]} to {found[-1]}, and nothing says what they mean: "
            "name them, as in data.labels='{background: 0, lesion: 1}', or number objects from 1 in each file"
        )
    first = 0 if 0 in found else found[0]
    labels = {"background": first} | {f"label_{value}": value for value in found if value != first}
    return {
        "labels": labels
    }, "nothing says what the values in the label files mean: these are all that occur; name them"


def _numbers_objects(labelled: Sequence[Values]) -> bool:
    """Whether each file counts from 1 without gaps, each to a number of its own."""
    lasts = [max(values.counts) for values in labelled]
    gapless = all(
        set(values.counts) | {0} == set(range(last + 1)) for values, last in zip(labelled, lasts, strict=True)
    )
    return gapless and max(lasts) > SEVERAL and len(set(lasts)) > len(lasts) / 2
