"""``report.json``: what every start of ``medseg infer`` did, so that it can be looked up, and done again.

    format   of this file
    starts   by a digest of their own: versions, commit, device, model packages, options
    scans    one row a scan: input, output, what became of it, what it was done with, digests

Digests are of decoded voxels and of where they lie (:mod:`medseg.datasets.checks.digest`). Inputs are called by their
public names (:mod:`medseg.private`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from medseg.datasets.checks.digest import Digest
from medseg.errors import MedsegError
from medseg.files import digest_of, read_json, sha256_of
from medseg.geometry import Box
from medseg.inference.model import Model, Options, Precision, chain_of
from medseg.inference.plan import Plan
from medseg.inference.settings import InferenceSettings
from medseg.inference.tta import Turns
from medseg.package import MODEL
from medseg.postprocessing.settings import parse_steps
from medseg.scans.dicom_facts import SeriesChoice
from medseg.versions import commit_of, versions

REPORT = "report.json"
FORMAT = 1
"""The newest format of the report that this version reads, and the one that it writes."""


class Content(BaseModel):
    """A part of a report."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class Package(Content):
    """A model package.

    Attributes:
        path: its folder; of one that was asked for by an address, that address as it was given.
        weights_sha256: of its weights.
        card_sha256: of its model.json.
        version: the address that always means it, ``models:/NAME/3``; None for a folder.
        digest: of the package, as its registry keeps it; None for a folder.
    """

    path: str
    weights_sha256: str
    card_sha256: str
    version: str | None = None
    digest: str | None = None

    @classmethod
    def of(cls, model: Model) -> Package:
        """Of a loaded model."""
        found = model.fetched
        return cls(
            path=str(model.folder) if found is None else found.address,
            weights_sha256=model.card.weights_sha256,
            card_sha256=sha256_of(model.folder / MODEL),
            version=None if found is None else found.version,
            digest=None if found is None else found.digest,
        )


class Asked(Content):
    """The options of a start, resolved, but for those that each scan's own row has."""

    settings: InferenceSettings
    turns: Turns | None
    part: tuple[tuple[int, ...], tuple[int, ...]] | None
    probabilities: Precision | None
    amp: bool
    postprocessing: list[dict[str, Any]]
    series_sha256: str | None
    series_filter: str | None
    strict: bool

    @classmethod
    def of(cls, model: Model, options: Options) -> Asked:
        """Of a model that goes through scans with these options."""
        settings = (options.settings or model.card.inference).resolved(model.network, model.card.window)
        series = options.series or SeriesChoice()
        return cls(
            settings=settings,
            turns=options.turns,
            part=None if options.part is None else (options.part.start, options.part.stop),
            probabilities=options.probabilities,
            amp=options.amp,
            postprocessing=chain_of(model, options).to_list(),
            series_sha256=None if series.uid is None else digest_of(series.uid),
            series_filter=", ".join(f"{c.key}{c.sign}{c.value}" for c in series.conditions) or None,
            strict=options.strict,
        )

    def options(self, plan: Plan) -> Options:
        """As they were, to go through a scan with a plan that is known; the series is for the caller to find.

        Raises:
            ConfigError: for steps that are none.
        """
        return Options(
            settings=self.settings,
            turns=self.turns,
            part=None if self.part is None else Box(*self.part),
            probabilities=self.probabilities,
            overwrite=True,
            amp=self.amp,
            postprocessing=parse_steps(self.postprocessing, REPORT),
            plan=plan,
        )


class Start(Content):
    """One start of ``medseg infer``.

    Attributes:
        versions: of medseg and the libraries.
        commit: of medseg's checkout, where it stands in one.
        dirty: whether its files differ from that.
        device: ``cpu``, ``cuda:0``.
        hardware: what it is called; of a processor, the instructions that PyTorch uses.
        workers: processes.
        models: the packages.
        options: resolved.
    """

    versions: dict[str, str]
    commit: str | None
    dirty: bool
    device: str
    hardware: str
    workers: int
    models: list[Package]
    options: Asked

    @classmethod
    def of(cls, model: Model, options: Options, workers: int = 1) -> Start:
        """Of this process, now."""
        commit = commit_of()
        return cls(
            versions=versions(),
            commit=None if commit is None else commit.id,
            dirty=commit is not None and commit.dirty,
            device=str(model.device),
            hardware=hardware_of(model.device),
            workers=workers,
            models=[Package.of(one) for one in model.members],
            options=Asked.of(model, options),
        )

    @property
    def id(self) -> str:
        """What rows call it: a digest."""
        return digest_of(self.model_dump(mode="json"))[:12]


def hardware_of(device: torch.device) -> str:
    """What a device is called: convolutions round differently on another."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu" else device.type


class Row(Content):
    """What a report says of one scan; all but the first four are missing where it was not done.

    Attributes:
        input: its public name, or its path.
        output: its mask's path.
        status: ``done``, ``done before`` by an earlier start, or ``skipped``.
        why: the error of one that was skipped.
        key: digest of scan, model and options.
        start: by which start it was done.
        begun: when, in UTC.
        seconds: how long that took.
        plan: tile, batch, threads.
        remarks: in what it is unlike the training images.
        notes: lines that were said of it.
        input_digest: of the scan.
        output_digest: of the mask.
        output_bytes: of the mask's file, where medseg cannot read it back (see ``bytes_digest`` of the ledger).
        label_voxels: of each value in the mask.
        probabilities_digest: where probabilities were written.
        probabilities_bytes: of their file where medseg cannot read it back, as fractional DICOM SEG.
        digest_seconds: what looking at input and output again took, of a single process.
    """

    input: str
    output: str
    status: str
    why: str = ""
    key: str = ""
    start: str | None = None
    begun: str | None = None
    seconds: float | None = None
    plan: Plan | None = None
    remarks: list[dict[str, Any]] = []
    notes: list[str] = []
    input_digest: Digest | None = None
    output_digest: Digest | None = None
    output_bytes: str | None = None
    label_voxels: dict[int, int] = {}
    probabilities_digest: Digest | None = None
    probabilities_bytes: str | None = None
    digest_seconds: float = 0.0


class AuditReport(Content):
    """The content of ``report.json``."""

    format: int = FORMAT
    starts: dict[str, Start] = {}
    scans: list[Row]


def read_report(path: Path) -> AuditReport:
    """A report, or the one in a folder, validated.

    Raises:
        MedsegError: where it is missing, damaged, from an older medseg that kept no digests, or from a newer one.
    """
    path = path / REPORT if path.is_dir() else path
    content = read_json(path, "the report of medseg infer")
    if isinstance(content, dict) and "format" not in content and "scans" in content:
        raise MedsegError(f"{path} was written by an older medseg, which kept no digests: run medseg infer again")
    return _parsed(path, content)


def read_earlier(folder: Path) -> AuditReport:
    """As :func:`read_report`, of a folder whose masks are to be gone on with: without digests, it still names them."""
    path = folder / REPORT
    return _parsed(path, read_json(path, "the report of medseg infer"))


def _parsed(path: Path, content: Any) -> AuditReport:
    written = content.get("format") if isinstance(content, dict) else None
    if isinstance(written, int) and written > FORMAT:
        raise MedsegError(f"{path} has format {written} and this medseg reads up to {FORMAT}: install a newer medseg")
    try:
        return AuditReport.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise MedsegError(f"{path}: {key}: {first['msg']}; it is damaged or no report of medseg infer") from None
