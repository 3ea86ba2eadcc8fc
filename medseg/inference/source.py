"""A scan that is to be segmented: opened, looked through, and held to staying as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medseg.datasets.checks.facts import Facts, header_facts
from medseg.datasets.checks.survey import opened_image
from medseg.datasets.fingerprint import Image
from medseg.errors import ScanError
from medseg.files import digest_of, fingerprint
from medseg.inference.gate import Remark, remarks
from medseg.inference.model import Model, Options
from medseg.inference.segment import check_channels
from medseg.package import ModelCard
from medseg.scans.dicom_facts import SeriesChoice
from medseg.scans.header import FileScan
from medseg.scans.scan import Scan, open_scan


@dataclass(frozen=True)
class Source:
    """A scan that was opened and looked through: what can be done before its turn comes.

    Attributes:
        path: its file.
        fingerprint: of the file as it was then.
        scan: as it is in the file.
        view: as the network sees it.
        facts: of one pass through it; None where the header alone was looked at, or a part of it is wanted.
    """

    path: Path
    fingerprint: str
    scan: Scan
    view: Scan
    facts: Facts | None = None

    @classmethod
    def open(cls, path: Path, model: Model, options: Options) -> Source:
        """Opens a scan and measures what its normalization, the gate and the report need.

        Where a part is wanted, the rest is not gone through for the gate and the report: it may be terabytes.

        Raises:
            MedsegError: for a scan that cannot be read or that the model cannot take.
        """
        scan = _opened(path, model, options.series)
        check_channels(scan, model.members[0].network)
        found = fingerprint(*files_of(scan, path))
        view = model.view(scan, found)
        facts = None if options.part is not None else opened_image(scan, digest_of([found, str(path.resolve())]))
        return cls(path, found, scan, view, facts)

    @classmethod
    def glance(cls, path: Path, model: Model, series: SeriesChoice | None = None) -> Source:
        """As :meth:`open`, from the header alone: for a plan before anything is read."""
        scan = _opened(path, model, series)
        check_channels(scan, model.members[0].network)
        return cls(path, fingerprint(*files_of(scan, path)), scan, model.card.preprocessing.grid(scan))

    def remarks(self, card: ModelCard) -> list[Remark]:
        """In what the scan is unlike those that a model was trained on, as far as its package tells of them.

        Of one that was not gone through, the header alone says what it is.
        """
        image = Image.of([self.facts or header_facts(self.scan)])
        if card.fingerprint is None or image is None:
            return []
        return remarks(image, card.fingerprint, card.preprocessing)

    def check_unchanged(self) -> None:
        """Refuses to call a mask done whose scan has changed or vanished meanwhile.

        Raises:
            ScanError: saying so.
        """
        files = files_of(self.scan, self.path)
        if not all(file.exists() for file in files) or fingerprint(*files) != self.fingerprint:
            raise ScanError(
                f"{self.path} has changed or vanished while it was segmented: its mask is left unfinished; "
                "put the scan back, or start again with --overwrite"
            )


def _opened(path: Path, model: Model, series: SeriesChoice | None) -> Scan:
    """A file's scan, with the files of its other channels where the model's scans lie in several."""
    channels = model.card.channel_files
    if channels is not None and len(channels.files(path)) > 1:
        return channels.open(path)
    return open_scan(path, series=series)


def files_of(scan: Scan, path: Path) -> tuple[Path, ...]:
    """The files that a scan was opened from."""
    return scan.files if isinstance(scan, FileScan) else (path,)
