"""``report.json`` while scans are worked off: written anew after each, so that a kill takes nothing from it."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from medseg.datasets.checks.digest import Digest
from medseg.datasets.checks.facts import Facts, facts_of
from medseg.errors import MedsegError
from medseg.files import sha256_of, write_json
from medseg.inference.audit import REPORT, AuditReport, Row, Start, read_earlier
from medseg.scans.dicom_header import read_instance
from medseg.scans.scan import READERS, suffix_of

PIECE_BYTES = 1 << 20
"""Of a file, read at once."""


@dataclass
class Ledger:
    """The report of a folder while scans are worked off.

    Attributes:
        folder: whose report it is.
        start: this one.
        waiting: rows of the jobs whose turn has not come, by output.
        rows: of those that are through, by output.
    """

    folder: Path
    start: Start
    waiting: dict[str, Row]
    rows: dict[str, Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            earlier = read_earlier(self.folder)
        except MedsegError:
            earlier = AuditReport(scans=[])
        self._starts = earlier.starts
        self._earlier = {row.output: row for row in earlier.scans}

    def known(self, output: Path) -> Row | None:
        """What an earlier start says of a mask."""
        return self._earlier.get(str(output))

    def put(self, row: Row) -> Row:
        """Takes what has become of a scan, and writes the report anew, whole.

        Returns:
            the scan's row: with what an earlier start says of a mask that this one left as it is.
        """
        known = self._earlier.get(row.output)
        if row.status == "skipped" and known is not None and known.status != "skipped" and Path(row.output).exists():
            notes = dict.fromkeys([*known.notes, f"a later start left it as it is: {row.why}"])
            row = known.model_copy(update={"notes": list(notes)})
        elif row.status == "done before" and known is not None:
            row = known.model_copy(update={"status": row.status, "input": row.input, "key": row.key})
        self.waiting.pop(row.output, None)
        return self.complete(row)

    def complete(self, row: Row) -> Row:
        """Takes the whole of a row that is there, and writes the report anew; returns the row."""
        self.rows[row.output] = row
        self._write()
        return row

    def _write(self) -> None:
        waiting = {output: self._earlier.get(output, row) for output, row in self.waiting.items()}
        rows = {**self.rows, **waiting}
        rows |= {output: row for output, row in self._earlier.items() if output not in rows}
        starts = {**self._starts, self.start.id: self.start}
        used = {row.start for row in rows.values()}
        report = AuditReport(starts={id: s for id, s in starts.items() if id in used}, scans=list(rows.values()))
        write_json(self.folder / REPORT, report.model_dump(mode="json"))


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def with_digests(row: Row, facts: Facts | None, output: Path, probabilities: Path | None) -> Row:
    """A row of a mask that is done, with the digests of scan and mask; the mask is read back once, block by block."""
    begun = time.perf_counter()
    mask = facts_of(output, "label")
    shares = None if probabilities is None else Digest.of(facts_of(probabilities, "image"))
    unread = probabilities is not None and shares is None and probabilities.is_file()
    found = {
        "input_digest": None if facts is None else Digest.of(facts),
        "output_digest": Digest.of(mask),
        "output_bytes": bytes_digest(output) if mask.error and output.is_file() else None,
        "label_voxels": mask.values.counts if mask.values is not None else {},
        "probabilities_digest": shares,
        "probabilities_bytes": bytes_digest(probabilities) if unread and probabilities is not None else None,
        "digest_seconds": round(time.perf_counter() - begun, 3),
    }
    return row.model_copy(update=found)


def bytes_digest(path: Path) -> str:
    """SHA-256 of a file that medseg cannot read back as voxels; of DICOM its pixels', since its header tells versions.

    Raises:
        MedsegError: for a damaged DICOM file.
    """
    element = read_instance(path, str(path)).element if READERS.get(suffix_of(path)) == "dicom" else None
    if element is None:
        return sha256_of(path)
    offset, length, _ = element
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(offset)
        while length > 0 and (piece := file.read(min(length, PIECE_BYTES))):
            digest.update(piece)
            length -= len(piece)
    return digest.hexdigest()
