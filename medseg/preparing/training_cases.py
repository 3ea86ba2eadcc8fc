"""The cases of a training: in memory as far as they fit, prepared beyond; the samples are the same bit for bit.

fits in memory, prepared      read whole from its chunks
fits in memory, not prepared  read whole through the views
does not fit                  prepared, and read chunk by chunk; with ``never`` through the views each time
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

from numpy.typing import NDArray

from medseg.errors import MedsegError, OutputError, ScanError
from medseg.geometry import Box
from medseg.preparing.progress import PreparingBar
from medseg.preparing.record import IMAGE, LABEL, RECORD, Record, census_of, place_of, prepared_folder, used, whole
from medseg.preparing.request import Request
from medseg.preparing.run import account, prepare
from medseg.preparing.write import OneChannel
from medseg.scans.header import HeaderScan
from medseg.scans.scan import Scan
from medseg.training.samples import TrainingCase

AGAIN = "they are read through the views for now, and prepared anew at the next start"
When = Literal["auto", "always", "never"]
"""Which cases of a training are prepared: those that do not fit in memory, all, or none."""


def training_cases(requests: Sequence[Request], memory: int, when: When = "auto") -> list[TrainingCase]:
    """Cases to train on, in the order of the requests.

    Args:
        requests: the cases.
        memory: how many bytes of them may be held, the first ones first.
        when: which are prepared where they are not yet.

    Raises:
        MedsegError: where one cannot be read or prepared.
    """
    held = _fitting(requests, memory)
    wanted = [r for r in requests if when == "always" or (when == "auto" and r.case.name not in held)]
    if wanted:
        _prepare(wanted, when)
    opened = [_through_views(r) if when == "never" else _opened(r) for r in requests]
    return [case.cached() if case.name in held else case for case in opened]


def _prepare(requests: Sequence[Request], when: When) -> None:
    try:
        with PreparingBar() as bar:
            done = prepare(requests, watch=bar)
        print(f"{account(done)}: {prepared_folder()}", file=sys.stderr)
    except OutputError as error:
        if when == "always":
            raise
        print(f"{error}; training goes on and reads what is not prepared through the views", file=sys.stderr)


def _fitting(requests: Sequence[Request], memory: int) -> set[str]:
    """The names of those that fit, the first ones first."""
    names = set()
    for request in requests:
        if request.nbytes <= memory:
            memory -= request.nbytes
            names.add(request.case.name)
    return names


def _opened(request: Request) -> TrainingCase:
    """As it is prepared, or through the views where it is not."""
    try:
        return open_prepared(request)
    except (FileNotFoundError, MedsegError):
        return _through_views(request)


def _through_views(request: Request) -> TrainingCase:
    return TrainingCase(request.case.name, request.image(), request.label())


def open_prepared(request: Request) -> TrainingCase:
    """A prepared case, which counts as used now.

    Raises:
        FileNotFoundError: where there is none.
        MedsegError: where it is damaged, as far as the names and sizes of its files tell.
    """
    record = whole(request.key)
    census = census_of(record)
    used(record)
    image, label = (PreparedScan(request, record, kind) for kind in (IMAGE, LABEL))
    return TrainingCase(request.case.name, image, label, census)


class PreparedScan(HeaderScan):
    """An array of a prepared case; a box whose chunks are damaged or gone is read through the views, and that is said.

    Args:
        request: the case.
        record: what was prepared of it.
        kind: which of its arrays, «image» or «label».
    """

    def __init__(self, request: Request, record: Record, kind: str) -> None:
        grid = record.image if kind == IMAGE else record.label
        self._stored = grid.open(place_of(record.key) / kind, f"the {kind} of {request.case.name}")
        self._request = request
        self._kind = kind
        self._told = False
        super().__init__(self._stored.header)

    def _read(self, box: Box) -> NDArray:
        try:
            return self._stored.read(box)
        except ScanError:
            self._disown()
            return self._source.read(box)

    @cached_property
    def _source(self) -> Scan:
        return self._request.image() if self._kind == IMAGE else OneChannel(self._request.label())

    def _disown(self) -> None:
        """Has the case prepared anew by the next start."""
        if not self._told:
            print(f"the prepared arrays of {self._request.case.name} are damaged: {AGAIN}", file=sys.stderr)
        self._told = True
        place_of(self._request.key).joinpath(RECORD).unlink(missing_ok=True)
