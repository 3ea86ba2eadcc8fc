"""What private places are called in all that medseg says and writes.

Names of DICOM folders and files are names of patients more often than not. Who gives a case its public name
(:mod:`medseg.datasets.case_names`) conceals the places of its files here, once, and every
:class:`~medseg.errors.MedsegError` of this process says the case's name where it would have said the place.
"""

from __future__ import annotations

import os
import re

_NAMES: dict[str, str] = {}
_REST = r"(?:[/\\][^\s:;,'\"]*)?(?![\w-])"
"""What follows a concealed place: the rest of a path below it, and no further letter of its own name."""


def conceal(path: str | os.PathLike[str], name: str) -> None:
    """From now on :func:`public` says ``name`` where a text holds this path, as given or absolute, or one below it."""
    place = os.fspath(path)
    for text in (place, os.path.abspath(place), os.path.realpath(place)):
        if text.strip(os.sep + "."):
            _NAMES[text] = name


def public(text: str | os.PathLike[str]) -> str:
    """A text or a path, with names of cases in the places of those that are private."""
    said = os.fspath(text)
    for private in sorted((place for place in _NAMES if place in said), key=len, reverse=True):
        said = re.sub(re.escape(private) + _REST, _NAMES[private], said)
    return said
