"""The facts of many files, gone through by several processes and kept in the cache folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from medseg.datasets.cases import Case, DicomCase, is_there
from medseg.datasets.checks.facts import Facts, Role, facts_of, image_facts
from medseg.errors import MedsegError
from medseg.files import fingerprint, write_text
from medseg.processes import process_pool, usable_processors
from medseg.scans.cache_folder import cache_folder, key_of
from medseg.scans.scan import Scan, open_scan, suffix_of
from medseg.scans.stacked import files_of

VERSION = 4
"""Raised when facts change, so that older ones are not taken from the cache."""
MISSING = "does not exist"
CRASHED = "the process that read it died: the file is damaged, or larger than the memory"
FEW_BYTES = 4 << 20
"""Less than so much is read sooner than a process is started."""
BATCH = 8
"""At most so many files are handed to a process at once, and each process gets at least so many batches."""
_DETACHED = (".hdr", ".img", ".mhd", ".nhdr")

Watch = Callable[[int, int], None]
"""Takes how many files are done, and how many there are."""


@dataclass(frozen=True)
class Item:
    """One file to go through, as an image or a label; ``dicom`` says what it is of in a tree of DICOM studies."""

    path: Path
    role: Role
    dicom: DicomCase | None = None


def image_items(case: Case) -> list[Item]:
    """The files of a case's image."""
    return [Item(path, "image", case.dicom) for path in case.images]


def label_items(case: Case) -> list[Item]:
    """A case's label, where it has one."""
    return [Item(case.label, "label", case.dicom)] if case.label is not None else []


def survey(
    items: Iterable[Item], workers: int = 0, watch: Watch | None = None, fresh: bool = False
) -> dict[Item, Facts]:
    """The facts of files, in the order of the items, whatever the number of processes.

    Args:
        items: which.
        workers: processes; 0 is one for each processor that this process may use.
        watch: is told after each file.
        fresh: whether to read what the cache knows anew.
    """
    wanted = list(dict.fromkeys(items))
    found = {item: Facts(MISSING) for item in wanted if not is_there(item.path)}
    keys = {item: "" if fresh else _key(item) for item in wanted if item not in found}
    found |= {item: facts for item, key in keys.items() if key and (facts := _recall(key)) is not None}
    unread = [_Task(item, key, item.path.stat().st_size) for item, key in keys.items() if item not in found]
    for task, facts in _read(sorted(unread, key=lambda task: -task.size), workers):
        found[task.item] = facts
        if watch is not None:
            watch(len(found), len(wanted))
    return {item: found[item] for item in wanted}


def opened_image(scan: Scan, key: str) -> Facts:
    """The facts of an image that is open, kept under a key that changes with its files.

    Raises:
        ScanError: where it cannot be read to its end.
    """
    key = hashlib.sha256(repr((VERSION, key)).encode()).hexdigest()
    known = _recall(key)
    if known is not None:
        return known
    facts = image_facts(scan)
    _remember(key, facts)
    return facts


@dataclass(frozen=True)
class _Task:
    """A file to read, the key that its facts are kept under, where it is known already, and its size in bytes."""

    item: Item
    key: str
    size: int


_Read = tuple[_Task, Facts]
_Reader = Callable[[Path, Role, DicomCase | None], Facts]


def _read(tasks: Sequence[_Task], workers: int) -> Iterator[_Read]:
    """The facts of each, in whatever order they come; the longest first, so that processes end together."""
    count = min(workers or usable_processors(), len(tasks))
    if count < 2 or sum(task.size for task in tasks) < FEW_BYTES:
        for task in tasks:
            yield from _work(facts_of, [task])
        return
    left = dict.fromkeys(tasks)
    while left:
        suspects = yield from _together(left, count)
        for task in suspects:
            yield task, _alone(task)
            del left[task]


def _work(reader: _Reader, tasks: Sequence[_Task]) -> list[_Read]:
    """What a process does: reads some files and keeps their facts."""
    done = [(task, reader(task.item.path, task.item.role, task.item.dicom)) for task in tasks]
    for task, facts in done:
        _remember(task.key or _key(task.item), facts)
    return done


def _together(left: dict[_Task, None], count: int) -> Generator[_Read, None, list[_Task]]:
    """Takes what has been read off ``left``; returns what was being read when a process died."""
    at_work: dict[Future[list[_Read]], list[_Task]] = {}
    with process_pool(count) as pool:
        try:
            for batch in _batches(list(left), count):
                at_work[pool.submit(_work, facts_of, batch)] = batch
                if len(at_work) >= 2 * count:
                    yield from _done(at_work, left)
            while at_work:
                yield from _done(at_work, left)
        except BrokenProcessPool:
            return [task for batch in at_work.values() for task in batch if task in left]
        finally:
            pool.shutdown(cancel_futures=True)
    return []


def _batches(tasks: list[_Task], count: int) -> Iterator[list[_Task]]:
    """Small files go together, so that handing them over costs less than reading them; enough batches for all."""
    most = max(1, min(BATCH, len(tasks) // (count * BATCH)))
    batch: list[_Task] = []
    for task in tasks:
        batch.append(task)
        if len(batch) == most or sum(own.size for own in batch) > FEW_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _done(at_work: dict[Future[list[_Read]], list[_Task]], left: dict[_Task, None]) -> Iterator[_Read]:
    for future in wait(at_work, return_when=FIRST_COMPLETED).done:
        read = future.result()
        del at_work[future]
        for task, facts in read:
            del left[task]
            yield task, facts


def _alone(task: _Task) -> Facts:
    """The facts of a file that may kill the process that reads it."""
    with process_pool(1) as pool:
        try:
            return pool.submit(_work, facts_of, [task]).result()[0][1]
        except BrokenProcessPool:
            return Facts(CRASHED)


def _key(item: Item) -> str:
    """A digest that changes with the file and with what is asked of it; empty where it cannot be had."""
    suffix = suffix_of(item.path)
    try:
        files = files_of(open_scan(item.path)) if suffix in _DETACHED else (item.path,)
        # Files without compression may share size, time and both ends: their places on the disk tell them apart.
        parts = [(file.stat().st_ino, fingerprint(file) if file.is_dir() else key_of(file)) for file in files]
    except (MedsegError, OSError):
        return ""
    about = (VERSION, item.role, suffix, parts) + (() if item.dicom is None else _dicom_key(item.dicom))
    return hashlib.sha256(repr(about).encode()).hexdigest()


def _dicom_key(case: DicomCase) -> tuple[str, ...]:
    return case.series, repr(case.table), fingerprint(case.image)


def _place(key: str) -> Path:
    return cache_folder() / "checks" / f"{key}.json"


def _recall(key: str) -> Facts | None:
    try:
        return Facts.from_dict(json.loads(_place(key).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(key: str, facts: Facts) -> None:
    """Keeps facts for the next time; what could not be read is looked at anew."""
    if key and not facts.error:
        place = _place(key)
        place.parent.mkdir(exist_ok=True)
        write_text(place, json.dumps(facts.to_dict()))
