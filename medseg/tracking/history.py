"""What a run has logged so far, as its log tells: a run that goes on doubles nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from medseg.tracking.spool import Record, Spool


@dataclass
class History:
    """What a log holds already.

    Attributes:
        params: the first value of each.
        tags: the last value of each.
        steps: each metric's last step.
        pictures: each picture's last step.
        status: the last one; None where the run has not ended.
    """

    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    pictures: dict[str, int] = field(default_factory=dict)
    status: str | None = None

    @classmethod
    def of(cls, spool: Spool) -> History:
        """That of a spool."""
        history = cls()
        for record, _ in spool.records():
            if note := NOTES.get(record["kind"]):
                note(history, record)
        return history

    def _params(self, record: Record) -> None:
        self.params = {**record["values"], **self.params}

    def _tags(self, record: Record) -> None:
        self.tags |= record["values"]

    def _metrics(self, record: Record) -> None:
        for name in record["values"]:
            self.steps[name] = max(record["step"], self.steps.get(name, record["step"]))

    def _file(self, record: Record) -> None:
        if "picture" in record:
            self.pictures[record["picture"]] = record["step"]

    def _status(self, record: Record) -> None:
        self.status = None if record["status"] == "RUNNING" else record["status"]


NOTES: dict[str, Callable[[History, Record], None]] = {
    "params": History._params,
    "tags": History._tags,
    "metrics": History._metrics,
    "file": History._file,
    "status": History._status,
}
"""By the kind of a record: what is remembered of it."""
