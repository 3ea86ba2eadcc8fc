"""What the values of BIDS labels mean: a lookup table, a ``LabelMap``, or the name of a mask.

    index  name           color        _dseg.tsv, beside the label or above it: in its derivative or the data set
    1      Gray Matter    #ff53bb
    {"LabelMap": {"1": "Gray Matter"}} in _dseg.json; a list names 0, 1, ...

Of several tables the one in the nearest folder counts, and there the one with the most entities of the label (BIDS
1.10, «The inheritance principle»). A mask in NIfTI is 0 and 1: the entity ``label`` names it, else ``desc``, else its
suffix.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medseg.datasets.cases import check_inside
from medseg.datasets.labels import BACKGROUND
from medseg.datasets.layouts.bids_names import BidsName
from medseg.datasets.layouts.description import DatasetInfo, validated
from medseg.errors import ConfigError
from medseg.files import read_json
from medseg.scans.formats import READERS, suffix_of
from medseg.scans.segments import SegmentLook

LABEL_MAP = "LabelMap"
_WHOLE = re.compile(r"-?[0-9]{1,10}", re.ASCII)
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_MANUAL = re.compile(r"(.+)-(manual|mask|msk|seg|dseg)")


class Lookup:
    """The meanings of a data set's labels; each table is read once.

    Args:
        root: its folder, up to which tables are looked for.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[Path, list[Path]] = {}
        self._tables: dict[Path, DatasetInfo | None] = {}

    def find(self, label: BidsName) -> tuple[Path, DatasetInfo] | None:
        """What a label's values mean and which file says so; None where none does.

        Raises:
            ConfigError: where a table or a ``LabelMap`` is damaged.
            MedsegError: where it leads out of the root.
        """
        for path in self._candidates(label):
            if path not in self._tables:
                self._tables[path] = _of_table(path) if path.suffix == ".tsv" else _of_json(path)
            info = self._tables[path]
            if info is not None:
                return path, info
        if label.suffix == "dseg" or READERS[suffix_of(label.path)] != "nifti":
            return None
        return label.path, DatasetInfo(labels={BACKGROUND: 0, mask_name(label): 1})

    def _candidates(self, label: BidsName) -> Iterator[Path]:
        """The tables that are about a label, the one that counts first."""
        folder, root = label.path.parent, self._root
        own = set(label.stem.split("_"))
        while folder.is_relative_to(root):
            fits = [
                path for path in self._listed(folder) if _parts(path)[-1] == label.suffix and {*_parts(path)} <= own
            ]
            for path in sorted(fits, key=lambda path: (-len(_parts(path)), path.suffix != ".tsv")):
                check_inside(path, root)
                yield path
            if folder == root:
                return
            folder = folder.parent

    def _listed(self, folder: Path) -> list[Path]:
        if folder not in self._folders:
            found = [path for path in sorted(folder.iterdir()) if path.suffix in (".tsv", ".json")]
            self._folders[folder] = [path for path in found if not path.name.startswith(".") and path.is_file()]
        return self._folders[folder]


def mask_name(label: BidsName) -> str:
    """What the one structure of a mask is called.

    >>> from medseg.datasets.layouts.bids_names import named
    >>> [mask_name(named(Path(f"sub-1_{rest}.nii.gz"), Path())) for rest in ("label-lesion_mask", "T2w_seg-manual")]
    ['lesion', 'seg']
    """
    match = _MANUAL.fullmatch(label.suffix)
    return label.entities.get("label") or label.entities.get("desc") or (match[1] if match else label.suffix)


def _parts(path: Path) -> list[str]:
    return path.stem.split("_")


def _of_table(path: Path) -> DatasetInfo:
    names: dict[int, str] = {}
    looks: dict[str, SegmentLook] = {}
    for number, row in enumerate(_rows(path), 2):
        index, name = (str(row.get(key) or "").strip() for key in ("index", "name"))
        if not _WHOLE.fullmatch(index) or not name or int(index) in names:
            raise ConfigError(f"{path}:{number}: each row must have an index of its own, a whole number, and a name")
        names[int(index)] = name
        if _COLOR.fullmatch(color := str(row.get("color") or "").strip()):
            looks.setdefault(name, SegmentLook(color=color))
    return _info(names, looks, path)


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t")
            columns = [str(name).strip() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} is not readable as a table ({error}): BIDS has the labels' names there") from None
    for key in ("index", "name"):
        if key not in columns:
            raise ConfigError(f"{path} has no column {key!r}: BIDS has index and name there, with tabs between them")
    return rows


def _of_json(path: Path) -> DatasetInfo | None:
    """A sidecar's ``LabelMap``: names by value, values by name, or names of 0, 1, ...; None where there is none."""
    content = read_json(path, "what BIDS says of a label", ConfigError)
    told = content.get(LABEL_MAP) if isinstance(content, Mapping) else None
    if told is None:
        return None
    pairs = (
        [*told.items()] if isinstance(told, Mapping) else [*enumerate(told)] if isinstance(told, list) else [("", 0)]
    )
    names: dict[int, str] = {}
    for one, other in pairs:
        value, name = (other, one) if isinstance(other, int) and not isinstance(other, bool) else (one, other)
        number = int(value) if _WHOLE.fullmatch(str(value)) else None
        if number is None or number in names or not isinstance(name, str) or not name.strip():
            raise ConfigError(f'{path}: {LABEL_MAP} must give each value a name, as in {{"1": "Gray Matter"}}')
        names[number] = name
    return _info(names, {}, path)


def _info(names: Mapping[int, str], looks: Mapping[str, SegmentLook], path: Path) -> DatasetInfo:
    """Values of one name are one label; 0 is the background where nothing else is said of it."""
    values: dict[str, list[int]] = {} if 0 in names else {BACKGROUND: [0]}
    for value in sorted(names):
        values.setdefault(names[value], []).append(value)
    labels = {name: some[0] if len(some) == 1 else some for name, some in values.items()}
    return validated({"labels": labels, "segments": dict(looks)}, path)
