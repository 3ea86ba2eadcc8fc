"""Runs of what is done with a model: ``medseg infer --track`` and ``medseg evaluate --track``.

Each is linked to the model by the digest of its weights (the tag ``medseg.weights``, which the run that trained them
and the versions that were registered have too), and to the data by theirs. Neither has paths of scans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from medseg.datasets.labels import Labels
from medseg.errors import MedsegError
from medseg.evaluation.evaluate import INFERENCE
from medseg.evaluation.report import CSV, JSON, Report
from medseg.files import digest_of, read_json
from medseg.inference.audit import AuditReport, Row, read_report
from medseg.tracking.describe import describe, facts_of, question_of
from medseg.tracking.run import Run
from medseg.tracking.store import Store

WEIGHTS = "medseg.weights"
"""The tag with the SHA-256 of a model's weights."""
REFERENCES = "references.digest"
"""The tag with the digest of all references that scores are against: runs that share it can be compared."""
EXPERIMENT = "evaluations"
"""MLflow's experiment of masks that nothing is known of."""


@dataclass(frozen=True)
class Origin:
    """Where masks come from, as far as ``inference.json`` beside them says.

    Attributes:
        weights: digests of the models' weights.
        dataset: the data set that they were trained on.
        labels: their labels' names.
    """

    weights: tuple[str, ...] = ()
    dataset: str | None = None
    labels: tuple[str, ...] = ()

    @classmethod
    def of(cls, folder: Path) -> Origin:
        """Of a folder of masks."""
        place = folder / INFERENCE
        if not place.is_file():
            return cls()
        content = read_json(place, "what medseg infer says of its masks")
        training = content.get("training") or {}
        weights = content.get("models") or [content["model"]] if "model" in content else ()
        return cls(tuple(weights), training.get("dataset"), tuple(Labels.from_dict(content["labels"]).targets))

    @property
    def experiment(self) -> str:
        """The one that its training is in, unless its config named another."""
        return question_of(self.dataset, self.labels) if self.dataset else EXPERIMENT

    def tags(self, store: Store) -> dict[str, str]:
        """The links to the models: digests, and what the store knows of them, if it answers."""
        tags = {WEIGHTS: ", ".join(self.weights)} if self.weights else {}
        try:
            return tags | _known(store, self.weights)
        except MedsegError:
            return tags


def track_inference(folder: Path, store: Store, experiment: str | None = None) -> Run:
    """Logs what ``medseg infer`` has reported in its folder.

    Args:
        folder: its output, which keeps the run too.
        store: where it goes.
        experiment: MLflow's; None for that of the training.

    Raises:
        MedsegError: where there is no report, or the store cannot be used.
    """
    report, origin = read_report(folder), Origin.of(folder)
    done = [row for row in report.scans if row.status != "skipped"]
    digest = digest_of([None if row.input_digest is None else row.input_digest.model_dump() for row in done])
    tags = {"medseg.kind": "inference", **origin.tags(store), **_device(report)}
    options = {name: start.options.model_dump(mode="json") for name, start in list(report.starts.items())[-1:]}
    with _begun(store, experiment or origin.experiment, folder, next(iter(options.values()), {}), tags) as run:
        run.dataset(
            origin.dataset or folder.name, digest, "the scans that were segmented", "inference", {"scans": len(done)}
        )
        run.results(_figures(report.scans, done))
        run.table("scans", [_row(number, row) for number, row in enumerate(report.scans)])
        run.description(facts_of(_account(report.scans, done)))
    return run


def track_evaluation(
    report: Report, masks: Sequence[Path], folder: Path | None, store: Store, experiment: str | None = None
) -> Run:
    """Logs an evaluation.

    Args:
        report: the scores.
        masks: the folders that were scored.
        folder: where the evaluation was written, which keeps the run too; None where it was not.
        store: where it goes.
        experiment: MLflow's; None for that of the training.

    Raises:
        MedsegError: where the store cannot be used.
    """
    origins = [Origin.of(one) for one in masks]
    weights = tuple(dict.fromkeys(digest for origin in origins for digest in origin.weights))
    origin = Origin(weights, origins[0].dataset, origins[0].labels)
    tags = {"medseg.kind": "evaluation", REFERENCES: report.references_digest, **origin.tags(store)}
    with _begun(store, experiment or origin.experiment, folder, dict(report.settings), tags) as run:
        run.dataset(
            origin.dataset or "references",
            report.references_digest,
            "the references",
            "evaluation",
            {"cases": len(report.cases)},
        )
        run.results({f"test/{column}": value for column, value in report.mean().items()})
        run.table("cases", report.rows())
        page = _artifacts(run, folder)
        run.description(
            describe(
                report, {"cases": str(len(report.cases)), "without a prediction": str(len(report.missing))}, {}, page
            )
        )
    return run


def _begun(
    store: Store, experiment: str, folder: Path | None, params: Mapping[str, Any], tags: Mapping[str, str]
) -> Run:
    kind = tags["medseg.kind"]
    name = kind if folder is None else f"{kind} {folder.resolve().name}"
    return Run.start(store, experiment, name, params, tags, folder)


def _known(store: Store, weights: Sequence[str]) -> dict[str, str]:
    """The run that trained a model, and the versions of it that are registered."""
    client = store.client()
    with store.explained("does not give its runs"):
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        trained = [
            run.info.run_id
            for digest in weights
            for run in client.search_runs(
                experiments, f"tags.`{WEIGHTS}` = '{digest}' and tags.`medseg.kind` = 'training'"
            )
        ]
        versions = [
            f"{version.name}/{version.version}"
            for digest in weights
            for version in client.search_model_versions(f"tags.`{WEIGHTS}` = '{digest}'")
        ]
    found = {"model.run_id": ", ".join(trained), "model.version": ", ".join(versions)}
    return {key: value for key, value in found.items() if value}


def _device(report: AuditReport) -> dict[str, str]:
    starts = list(report.starts.values())
    return {"device": starts[-1].device, "hardware": starts[-1].hardware} if starts else {}


def _figures(scans: Sequence[Row], done: Sequence[Row]) -> dict[str, float]:
    seconds = [row.seconds for row in done if row.seconds is not None]
    told = sum(bool(row.remarks) for row in scans)
    figures = {"scans": len(scans), "scans/skipped": len(scans) - len(done), "scans/unlike_training": told}
    return figures | ({"seconds/total": sum(seconds), "seconds/per_scan": fmean(seconds)} if seconds else {})


def _account(scans: Sequence[Row], done: Sequence[Row]) -> dict[str, str]:
    figures = _figures(scans, done)
    return {
        "scans": f"{len(scans)}, of which {len(done)} were segmented",
        "unlike the training images": f"{figures['scans/unlike_training']:.0f}",
        "time": f"{figures.get('seconds/total', 0.0):.1f} s",
    }


def _row(number: int, row: Row) -> dict[str, Any]:
    """What may be known of a scan by everybody who reads the run."""
    return {
        "scan": number,
        "status": row.status,
        "seconds": row.seconds,
        "unlike_training": len(row.remarks),
        "input": None if row.input_digest is None else row.input_digest.voxels,
        "output": None if row.output_digest is None else row.output_digest.voxels,
        **{f"voxels/{value}": count for value, count in row.label_voxels.items()},
    }


def _artifacts(run: Run, folder: Path | None) -> str | None:
    """Logs the files of an evaluation; the page's place, if there is one."""
    if folder is None:
        return None
    page = "report.html"
    for name in (CSV, JSON, page):
        if (folder / name).is_file():
            run.artifact(folder / name)
    return page if (folder / page).is_file() else None
