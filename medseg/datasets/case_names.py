"""What cases are called where others may read it: in logs, reports, runs, packages and the names of outputs.

A case is called by its file's stem. One that has a DICOM file or folder is called by a digest, ``case-k3v7q2ab``, since
names of DICOM files and folders are names of patients more often than not; with ``--case-names digest`` all are.

The digest is an HMAC-SHA-256 of the stem under a salt of the user's own, which no output holds: who does not have it
cannot try names. It is made once and kept, for its owner alone, in the settings folder; the same salt gives the same
names everywhere. ``case_map.csv`` beside what is written, for its owner alone too, says which file is which case.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import hmac
import io
import os
import re
import secrets
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from medseg.datasets.cases import Case, is_there
from medseg.datasets.layouts.dataset import DataSet, Problem
from medseg.errors import ConfigError, MedsegError
from medseg.files import partial_of
from medseg.private import conceal
from medseg.scans.contents import is_dicom, is_zarr
from medseg.scans.formats import READERS, suffix_of
from medseg.scans.header import reason

How = Literal["stem", "digest"]
MAP = "case_map.csv"
SALT = "case_salt"
LENGTH = 8
"""Characters of a digest in base 32: 40 bits, so that two of ten thousand cases share one in 1 of 20,000 sets."""
LEAST_SALT = 16
"""The bytes that a salt has at least."""
_NAME = re.compile(rf"case-[a-z2-7]{{{LENGTH}}}")
_FIRST_CHANNEL = "_0000"


def digest_name(key: str) -> str:
    """The public name of what a key says; a name that is one already stays.

    Raises:
        ConfigError: where there is no salt and none can be kept.
    """
    return key if _NAME.fullmatch(key) else f"case-{_digest('case', key)}"


def is_digest(name: str) -> bool:
    """Whether a name is a case's digest, under whatever salt."""
    return _NAME.fullmatch(name) is not None


def digest_patient(key: str) -> str:
    """The public name of a patient, ``patient-…``; the same key gives another digest as a case."""
    return f"patient-{_digest('patient', key)}"


def is_private(path: Path) -> bool:
    """Whether a scan's own name is not to be told: a DICOM file, or a folder of them."""
    if is_there(path) and path.is_dir():
        return not suffix_of(path) and not is_zarr(path)
    reader = READERS.get(suffix_of(path))
    return is_dicom(path) if reader is None and is_there(path) else reader in (None, "dicom")


def named(found: DataSet, how: How = "stem") -> DataSet:
    """A data set whose cases are called as others may know them; from then on messages call their files so too.

    Raises:
        MedsegError: where two cases' digests are the same.
    """
    cases = tuple(_renamed(case, how) for case in found.cases)
    names = {old.name: new.name for old, new in zip(found.cases, cases, strict=True)}
    names |= {name: _called(name, [path], how) for name, path in found.orphans.items()}
    _check_distinct(list(names.values()))
    orphans = {names[name]: path for name, path in found.orphans.items()}
    problems = tuple(_retold(problem, names, found.root, how) for problem in found.problems)
    renamed = replace(found, cases=cases, orphans=orphans, problems=problems, case_names=how)
    for name, path in files_by_case(renamed):
        if _NAME.fullmatch(name):
            conceal(path, name)
    return renamed


def named_as(names: Iterable[str], found: DataSet) -> list[str]:
    """Names that a user or a file gives cases → as the data set tells them.

    Names of no case of it become digests where all, or any, of its cases are called so: they may be a patient's.
    """
    told, private = found.told, found.case_names == "digest" or bool(found.told)
    public = {case.name for case in found.cases} | {*found.orphans} | {*found.left_out.values()}
    return [told.get(name) or (digest_name(name) if private and name not in public else name) for name in names]


def source_names(sources: Sequence[Path], stems: Sequence[str], how: How = "stem") -> list[str]:
    """What scans that are no data set are called, and messages call them so from then on.

    Args:
        sources: the scans.
        stems: of their names. Private ones that share theirs are told apart by their folders.
        how: «digest» makes all of them private.
    """
    counts = Counter(stems)
    above = Path(os.path.commonpath([path.absolute().parent for path in sources])) if sources else Path()
    names = []
    for source, stem in zip(sources, stems, strict=True):
        if how == "digest" or is_private(source):
            tree = source.absolute().parent.relative_to(above).as_posix()
            names.append(digest_name(stem if counts[stem] == 1 else f"{tree}/{stem}"))
            conceal(source, names[-1])
        else:
            names.append(stem)
    return names


def by_case(found: Mapping[str, Path], wanted: Collection[str] = (), how: How = "stem") -> dict[str, Path]:
    """Files by stem → by the names of their cases.

    Args:
        found: as :func:`~medseg.datasets.cases.find_scans` gives them.
        wanted: names of cases. A stem whose digest is among them is that case, as a label in NIfTI of a scan in DICOM.
        how: «digest» makes all of them private.
    """
    digests = any(map(_NAME.fullmatch, wanted))
    named: dict[str, Path] = {}
    for stem, path in found.items():
        known = [stem, stem.removesuffix(_FIRST_CHANNEL)]
        other = next((d for d in map(digest_name, known) if d in wanted), None) if digests else None
        name = stem if stem in wanted else other or _called(stem, [path], how)
        if _NAME.fullmatch(name) and name != stem:
            conceal(path, name)
        named[name] = path
    if len(named) < len(found):
        _check_distinct([_called(stem, [path], how) for stem, path in found.items()])
    return named


def write_map(folder: Path, files: Iterable[tuple[str, Path]]) -> Path | None:
    """Writes which file is which case, for the owner's eyes alone, beside what an earlier start wrote there.

    Args:
        folder: takes ``case_map.csv``; made where it is missing.
        files: a case's name and its file; those that are no digests are left out.

    Returns:
        its path; None where no case is called by a digest, and nothing is written.
    """
    rows = [(name, str(path.absolute())) for name, path in files if _NAME.fullmatch(name)]
    if not rows:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MAP
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("case", "file"))
    table.writerows(sorted({*_rows_of(path), *rows}))
    beside = partial_of(path)
    beside.unlink(missing_ok=True)
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text.getvalue())
    os.replace(beside, path)
    return path


def read_map(folder: Path) -> dict[str, Path]:
    """What ``case_map.csv`` in a folder says: by the names of cases, their files, the first of several; {} of none.

    Raises:
        MedsegError: where it cannot be read.
    """
    try:
        rows = _rows_of(folder / MAP)
    except (OSError, ValueError, csv.Error) as error:
        raise MedsegError(
            f"{folder / MAP} is not readable as CSV ({reason(error)}): a map of cases belongs there"
        ) from None
    return {name: Path(path) for name, path in reversed(rows)}


def files_by_case(found: DataSet) -> list[tuple[str, Path]]:
    """Every case of a data set with its files, for :func:`write_map`."""
    return [*((case.name, path) for case in found.cases for path in _files(case)), *found.orphans.items()]


def settings_folder() -> Path:
    """What is the user's own and not made again: $MEDSEG_CONFIG, $XDG_CONFIG_HOME/medseg, or ~/.config/medseg."""
    if chosen := os.environ.get("MEDSEG_CONFIG"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "medseg"


def _digest(kind: str, key: str) -> str:
    whole = hmac.new(_salt(), f"{kind}\0{key}".encode("utf-8", "surrogateescape"), hashlib.sha256).digest()
    return base64.b32encode(whole).decode().lower()[:LENGTH]


def _salt() -> bytes:
    """$MEDSEG_CASE_SALT, else what the settings folder keeps."""
    if given := os.environ.get("MEDSEG_CASE_SALT"):
        return given.encode()
    path = settings_folder() / SALT
    try:
        if not path.exists():
            _keep_salt(path)
        found = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(
            f"{path}: the salt of case names cannot be kept ({reason(error)}): set MEDSEG_CONFIG to a folder of yours, "
            "or MEDSEG_CASE_SALT to a secret text"
        ) from None
    if len(found) < LEAST_SALT:
        raise ConfigError(f"{path} holds {len(found)} bytes, which is no salt: put the right file there, or remove it")
    return found


def _keep_salt(path: Path) -> None:
    """Makes a salt, whole or not at all; where another process was faster, its own stays."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{SALT}.")
    try:
        with open(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
        os.link(beside, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(beside)


def _called(stem: str, files: Iterable[Path], how: How) -> str:
    return digest_name(stem) if how == "digest" or any(map(is_private, files)) else stem


def _renamed(case: Case, how: How) -> Case:
    name = _called(case.name, _files(case), how)
    return case if name == case.name else replace(case, name=name, stem=case.name)


def _files(case: Case) -> list[Path]:
    return [*case.images, *([case.label] if case.label is not None else [])]


def _retold(problem: Problem, names: Mapping[str, str], root: Path, how: How) -> Problem:
    """A problem that calls its case by its public name; what became no case may be a file's place below the root."""
    if problem.case is None:
        return problem
    files = [root / problem.case] if is_there(root / problem.case) else []
    name = names.get(problem.case) or _called(problem.case, files, how)
    text = re.sub(rf"(?<!\w){re.escape(problem.case)}(?!\w)", name, problem.text)
    return Problem(text, name)


def _rows_of(path: Path) -> list[tuple[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [(row[0], row[1]) for row in csv.reader(file) if len(row) == 2 and _NAME.fullmatch(row[0])]


def _check_distinct(names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise MedsegError(
            f"two cases have the digest {twice[0]}: rename one of their files, or take another MEDSEG_CASE_SALT"
        )


def mask_stem(name: str) -> str:
    """What a case's mask is called in a run's folder."""
    return name.replace("/", "_")
