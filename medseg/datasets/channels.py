"""How the files of one case are told apart where each holds some of its channels.

case_07_0000.nii.gz  case_07_0001.nii.gz      suffixes _0000 and _0001: the case is case_07
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from medseg.datasets.cases import Case
from medseg.datasets.check import open_channels
from medseg.errors import ScanError
from medseg.scans.scan import Scan, stem_of, suffix_of


class ChannelFiles(BaseModel):
    """What follows a case's name in the names of its files, in the order of the channels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suffixes: Annotated[list[str], Field(min_length=1)]
    resample: bool = Field(False, description="channels on other grids than the first one's are resampled to it")

    @classmethod
    def of(cls, cases: Sequence[Case], resample: bool = False) -> ChannelFiles | None:
        """What the files of all cases have in common; None where their names follow no such rule, or need none."""
        found = {_suffixes(case) for case in cases}
        suffixes = found.pop() if len(found) == 1 else None
        if suffixes is None or suffixes == ("",) or len(set(suffixes)) < len(suffixes):
            return None
        return cls(suffixes=list(suffixes), resample=resample)

    def case_of(self, path: Path) -> str:
        """A case's name: its first file's stem without the suffix; another file's is its stem."""
        return stem_of(path).removesuffix(self.suffixes[0]) if suffix_of(path) else path.name

    def files(self, first: Path) -> tuple[Path, ...]:
        """All files of a case, given the first; that alone where its name does not end as the rule says."""
        stem = stem_of(first)
        if not self.suffixes[0] or not stem.endswith(self.suffixes[0]):
            return (first,)
        return tuple(first.with_name(f"{self.case_of(first)}{s}{_suffix(first)}") for s in self.suffixes)

    def firsts(self, paths: Iterable[Path]) -> list[Path]:
        """Of many files, those that aren't a further channel of another one among them."""
        known = list(paths)
        further = {file for path in known for file in self.files(path)[1:]}
        return [path for path in known if path not in further]

    def open(self, first: Path) -> Scan:
        """The image of a case, given its first file.

        Raises:
            ScanError: where another one is missing.
            GridError: where they lie on different grids and are not to be resampled.
        """
        files = self.files(first)
        for file in files[1:]:
            if not file.exists():
                raise ScanError(
                    f"{first}: its channel {file.name} is missing; the model takes {len(files)} files a case, with the "
                    f"suffixes {', '.join(self.suffixes)}"
                )
        return open_channels(files, self.resample)


def _suffixes(case: Case) -> tuple[str, ...] | None:
    """What follows the case's name in the names of its files; None where they lie apart or are called otherwise."""
    stems = [stem_of(path) for path in case.images]
    if any(path.parent != case.image.parent for path in case.images):
        return None
    return tuple(s.removeprefix(case.name) for s in stems) if all(s.startswith(case.name) for s in stems) else None


def _suffix(path: Path) -> str:
    """The suffix as it is written."""
    return path.name[len(path.name) - len(suffix_of(path)) :]
