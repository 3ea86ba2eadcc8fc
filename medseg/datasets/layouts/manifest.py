"""A table of cases, CSV or JSON, beside the files or above them; paths are relative to it.

    case,image_t1,image_flair,label,patient,fold
    a,t1/a.nii.gz,flair/a.nii.gz,masks/a.nii.gz,P1,0

CSV: columns ``image`` (several files with «;» between them) or ``image_NAME`` or ``channel_NAME``, a file a channel in
the order of the columns; ``label``; and, where wanted, ``case``, ``patient`` and ``fold``. Others are left alone.
JSON: a list of objects with these keys, ``image`` a path or a list of paths, or an object with such a list as ``cases``
and beside it the keys of medseg's ``dataset.json``. A CSV may have that file beside it.
"""

from __future__ import annotations

import csv
import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.datasets.cases import Case, check_inside, natural_key
from medseg.datasets.channels import ChannelFiles
from medseg.datasets.layouts.dataset import DataSet, Layout, Problem, missing
from medseg.datasets.layouts.describe import read_dataset
from medseg.datasets.layouts.description import DatasetInfo, validated
from medseg.errors import ConfigError
from medseg.files import read_json
from medseg.scans.scan import stem_of

NAMES = ("manifest.csv", "manifest.json")
"""What a manifest is called that a folder is known by."""
SUFFIXES = (".csv", ".tsv", ".json")
_COLUMNS = ("case", "image", "label", "patient", "fold")
_CHANNEL = re.compile(r"(image|channel)s?([_ -].+|[0-9]+)?")
_SAME = 0.78
"""How alike two words are of which one is a slip of the other."""


def recognised(root: Path) -> str | None:
    """Why: it is a table itself, or holds one."""
    if root.is_file():
        return "it is a table of cases" if root.suffix.lower() in SUFFIXES else None
    return next((f"it holds {name}" for name in NAMES if (root / name).is_file()), None)


def read(root: Path) -> DataSet:
    """The data set.

    Raises:
        ConfigError: where the table is damaged, lacks a column, or names a case twice; with the row.
        MedsegError: where a path leads out of the manifest's folder.
    """
    path = root if root.is_file() else next((root / n for n in NAMES if (root / n).is_file()), root / NAMES[0])
    folder = path.parent
    check_inside(path, folder)
    info, rows = _json(path) if path.suffix.lower() == ".json" else _csv(path)
    cases: dict[str, Case] = {}
    problems: list[Problem] = []
    for row in rows:
        case = row.case(folder)
        if case.name in cases:
            raise ConfigError(
                f"{row.where}: case {case.name!r} is there before: give each its own name in a column case"
            )
        cases[case.name] = case
        files = (*case.images, *([case.label] if case.label is not None else []))
        problems += missing(files, folder, case.name, row.where)
    ordered = tuple(cases[name] for name in sorted(cases, key=natural_key))
    problems += _uneven(ordered, path)
    name = (info.name if info is not None else "") or (folder.resolve().name if path.name in NAMES else path.stem)
    return DataSet("manifest", folder, name, info, ordered, {}, tuple(problems), ".", ChannelFiles.of(ordered), path)


@dataclass(frozen=True)
class _Row:
    """One case as the table has it, and where that stands."""

    where: str
    images: tuple[str, ...]
    label: str | None
    name: str | None
    patient: str | None
    fold: str | None

    def case(self, folder: Path) -> Case:
        if not self.images:
            raise ConfigError(f"{self.where}: there is no image: each case needs one")
        first, *further = (folder / text for text in self.images)
        name = self.name or re.sub("_0000$", "", stem_of(first))
        if re.search(r"[/\\\x00-\x1f]", name) or name.startswith("."):
            raise ConfigError(f"{self.where}: case {name!r} is no name for files: leave out slashes and leading dots")
        label = folder / self.label if self.label else None
        return Case(name, first, label, self.patient or name, tuple(further), self.fold)


def _csv(path: Path) -> tuple[DatasetInfo | None, list[_Row]]:
    info = read_dataset(path.parent)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            head = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=_delimiter(head), strict=True)
            columns = [(name or "").strip() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            _check_columns(columns, path)
            return info, [_csv_row(row, columns, f"{path}:{reader.line_num}") for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} is not readable as CSV ({error}): a manifest belongs there") from None


def _delimiter(head: str) -> str:
    return next((d for d in (",", "\t", ";") if d in head), ",")


def _check_columns(columns: list[str], path: Path) -> None:
    twice = next((c for c in columns if c and columns.count(c) > 1), None)
    if twice:
        raise ConfigError(f"{path}: the column {twice!r} is there twice")
    if not any(_CHANNEL.fullmatch(c) for c in columns):
        raise ConfigError(
            f"{path} has the columns {', '.join(columns)}: image, or one image_NAME a channel, is missing"
        )
    for column in columns:
        _check_slip(column, path)


def _check_slip(word: str, path: Path) -> None:
    """Columns that are not ours are left alone, but a misspelt one would be lost."""
    if word in _COLUMNS or _CHANNEL.fullmatch(word):
        return
    meant = difflib.get_close_matches(word.lower(), [*_COLUMNS], n=1, cutoff=_SAME)
    if meant:
        raise ConfigError(f"{path}: the column {word!r} is none of {', '.join(_COLUMNS)}; did you mean {meant[0]!r}?")


def _csv_row(row: Mapping[str, Any], columns: list[str], where: str) -> _Row:
    if None in row or None in row.values():
        raise ConfigError(f"{where}: this row has another number of cells than the first, which has {len(columns)}")
    cells = {key: value.strip() for key, value in row.items()}
    files = [cell for column in columns if _CHANNEL.fullmatch(column) for cell in cells[column].split(";")]
    known = {key: cells.get(key) or None for key in ("label", "case", "patient", "fold")}
    if any(not file.strip() for file in files):
        raise ConfigError(f"{where}: an image is missing: every case needs each channel")
    return _Row(where, tuple(f.strip() for f in files), known["label"], known["case"], known["patient"], known["fold"])


def _json(path: Path) -> tuple[DatasetInfo | None, list[_Row]]:
    content = read_json(path, "a manifest", ConfigError)
    about = dict(content) if isinstance(content, dict) else {}
    rows = about.pop("cases", None) if isinstance(content, dict) else content
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{path} is no list of cases, nor an object with one as cases: it is no manifest")
    info = validated(about, path) if about else None
    return info, [_json_row(row, path, f"{path}: cases[{number}]") for number, row in enumerate(rows)]


def _json_row(row: Mapping[str, Any], path: Path, where: str) -> _Row:
    for key in row:
        _check_slip(key, path)
    files = [file for key, value in row.items() if _CHANNEL.fullmatch(key) for file in _listed(value)]
    words = {key: row.get(key) for key in ("label", "case", "patient", "fold")}
    if not all(isinstance(file, str) and file for file in files):
        raise ConfigError(f"{where}: image must be a path or a list of paths")
    for key, value in words.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
            raise ConfigError(f"{where}: {key} is {json.dumps(value)[:80]}; it must be text")
    texts = {key: None if value is None else str(value) for key, value in words.items()}
    return _Row(where, tuple(files), texts["label"], texts["case"], texts["patient"], texts["fold"])


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _uneven(cases: tuple[Case, ...], path: Path) -> Iterator[Problem]:
    """Cases with another number of files than the first."""
    for case in cases[1:]:
        if len(case.images) != len(cases[0].images):
            yield Problem(
                f"{path}: case {case.name} has {len(case.images)} image files and {cases[0].name} has "
                f"{len(cases[0].images)}: every case needs each channel",
                case.name,
            )


LAYOUT = Layout(recognised, read)
