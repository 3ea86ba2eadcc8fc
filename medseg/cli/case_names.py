"""``--case-names``: what cases are called in all that a command says and writes."""

from __future__ import annotations

from enum import StrEnum

CASE_NAMES = "What cases are called: their files' stems, or digests; DICOM ones always are digests. case_map.csv links."


class CaseNames(StrEnum):
    """What cases are called."""

    stem = "stem"
    digest = "digest"
