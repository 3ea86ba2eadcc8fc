"""Runs of what is done with a model: ``medseg infer --track`` and ``medseg evaluate --track``.

Each is linked to the model by the digest of its weights (the tag ``medseg.weights``, which the run that trained them
and the versions that were registered have too), and to the data by theirs. Neither has paths of scans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from medseg.datasets.labels import Labels
from medseg.errors import MedsegError
from medseg.evaluation.evaluate import INFERENCE
from medseg.evaluation.made_by import VALIDATION
from medseg.evaluation.report import CSV, JSON, Report
from medseg.files import digest_of, read_json
from medseg.inference.audit import AuditReport, Row, Start, read_report
from medseg.package import MODEL, read_card
from medseg.scans.scan import suffix_of
from medseg.tracking.describe import describe, facts_of, question_of
from medseg.tracking.history import History
from medseg.tracking.run import Run
from medseg.tracking.spool import Spool
from medseg.tracking.store import Store, Unreachable

if TYPE_CHECKING:
    from PIL.Image import Image

KIND = "medseg.kind"
"""The tag that says what a run did."""
WEIGHTS = "medseg.weights"
"""The tag with the SHA-256 of a model's weights."""
REFERENCES = "references.digest"
"""The tag with the digest of all references that scores are against: runs that share it can be compared."""
SCORES = "scores.digest"
"""The tag with the digest of all scores of all cases."""
EXPERIMENT = "evaluations"
"""MLflow's experiment of masks that nothing is known of."""
INFERRED, EVALUATED = "inference", "evaluation"
ALIKE = (KIND, WEIGHTS, REFERENCES, SCORES)
"""The tags that tell whether something is done again or something else: that is another run."""


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
    def of(cls, masks: Path) -> Origin:
        """Of a folder of masks, a run's validation cases too, or of one mask.

        Raises:
            MedsegError: where what lies beside them is damaged.
        """
        folder = masks.parent if masks.is_file() or suffix_of(masks) else masks
        place, package = folder / INFERENCE, folder.parent / "model"
        if folder.name == VALIDATION and (package / MODEL).is_file():
            card = read_card(package)
            return cls((card.weights_sha256,), _dataset(card.training), tuple(card.label_map.targets))
        content = read_json(place, "what medseg infer says of its masks") if place.is_file() else None
        return cls.told(content) if isinstance(content, Mapping) else cls()

    @classmethod
    def told(cls, content: Mapping[str, Any]) -> Origin:
        """Of what ``inference.json`` says."""
        weights = content.get("models") or [content["model"]] if "model" in content else ()
        labels = Labels.from_dict(content["labels"]).targets if "labels" in content else ()
        return cls(tuple(weights), _dataset(content.get("training") or {}), tuple(labels))

    @classmethod
    def pooled(cls, masks: Sequence[Path]) -> Origin:
        """Of several folders: all models, and the first folder's data set and labels."""
        origins = [cls.of(one) for one in masks]
        weights = dict.fromkeys(digest for origin in origins for digest in origin.weights)
        return replace(origins[0], weights=tuple(weights))

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


def check_trackable(store: Store, experiment: str, folder: Path | None) -> None:
    """Refuses, before anything is computed, what could never be tracked; a store that does not answer can wait.

    Args:
        store: where the run is to go.
        experiment: MLflow's.
        folder: the one that is to keep the run; None for none.

    Raises:
        MedsegError: where the store is none of MLflow's, of another schema, or locked; where the experiment was
            deleted; where the folder keeps a run of another kind, such as a training's.
    """
    kind = None if folder is None else History.of(Spool(folder)).tags.get(KIND)
    if kind not in (None, INFERRED, EVALUATED):
        raise MedsegError(f"{folder} keeps the run of a {kind}, which is to stay: choose another folder")
    try:
        client = store.client()
        with store.explained("does not give its experiments"):
            known = client.get_experiment_by_name(experiment)
        if known is not None:
            store.experiment(client, experiment)
    except Unreachable:
        return


def track_inference(folder: Path, start: Start, origin: Origin, store: Store, experiment: str | None = None) -> Run:
    """Logs what ``medseg infer`` has reported in its folder of these models and options.

    Args:
        folder: its output, which keeps the run too.
        start: the one that it was; scans that other models, or other options, were used for are left out.
        origin: what is known of the models.
        store: where it goes.
        experiment: MLflow's; None for that of the training.

    Raises:
        MedsegError: where there is no report, or the store cannot be used.
    """
    scans = _own(read_report(folder), start)
    done = [row for row in scans if row.status != "skipped"]
    digest = digest_of([None if row.input_digest is None else row.input_digest.model_dump() for row in done])
    tags = {KIND: INFERRED, **origin.tags(store), "device": start.device, "hardware": start.hardware}
    options = start.options.model_dump(mode="json")
    with _begun(store, experiment or origin.experiment, folder, options, tags) as run:
        run.dataset(
            origin.dataset or folder.name, digest, "the scans that were segmented", "inference", {"scans": len(done)}
        )
        run.results(_figures(scans, done))
        run.table("scans", [_row(number, row) for number, row in enumerate(scans)])
        run.description(facts_of(_account(scans, done)))
    return run


def track_evaluation(
    report: Report,
    origin: Origin,
    folder: Path | None,
    store: Store,
    experiment: str | None = None,
    pictures: Mapping[str, Image] | None = None,
    page: Path | None = None,
) -> Run:
    """Logs an evaluation.

    Args:
        report: the scores.
        origin: where the masks come from.
        folder: where the evaluation was written, which keeps the run too; None where it was not.
        store: where it goes.
        experiment: MLflow's; None for that of the training.
        pictures: charts and cases, by name (:meth:`medseg.tracking.review.Review.pictures`).
        page: ``report.html``; None where none was written.

    Raises:
        Unreachable: without a folder, where the store does not answer.
        MedsegError: where the store cannot be used.
    """
    scores = digest_of(replace(report, trained_on={}).rows())
    tags = {KIND: EVALUATED, REFERENCES: report.references_digest, SCORES: scores, **origin.tags(store)}
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
        places = {name: run.picture(picture, name) for name, picture in (pictures or {}).items()}
        written = [] if folder is None else [folder / CSV, folder / JSON]
        for path in written if page is None else [*written, page]:
            run.text(path.read_text("utf-8"), path.name)  # a copy: the next evaluation may replace the file
        run.description(
            describe(
                report,
                {"cases": str(len(report.cases)), "without a prediction": str(len(report.missing))},
                {name: place for name, place in places.items() if place is not None},
                None if page is None else page.name,
            )
        )
    return run


def _dataset(training: Mapping[str, Any]) -> str | None:
    """The data set that a model was trained on; of an ensemble, the one that all its models were trained on."""
    members = training.get("ensemble")
    if not isinstance(members, Sequence):
        return training.get("dataset")
    names = {member.get("dataset") for member in members}
    return names.pop() if len(names) == 1 else None


def _own(report: AuditReport, start: Start) -> list[Row]:
    """The scans that were done with the models and options of a start, now or before, and those that were not done."""

    def used(one: Start) -> tuple[list[str], dict[str, Any]]:
        return [model.weights_sha256 for model in one.models], one.options.model_dump(mode="json")

    same = {id for id, one in report.starts.items() if used(one) == used(start)}
    return [row for row in report.scans if row.start is None or row.start in same]


def _begun(
    store: Store, experiment: str, folder: Path | None, params: Mapping[str, Any], tags: Mapping[str, str]
) -> Run:
    name = tags[KIND] if folder is None else f"{tags[KIND]} {folder.resolve().name}"
    return Run.start(store, experiment, name, params, tags, folder, alike=ALIKE)


def _known(store: Store, weights: Sequence[str]) -> dict[str, str]:
    """The run that trained a model, and the versions of it that are registered."""
    client = store.client()
    with store.explained("does not give its runs"):
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        trained = [
            run.info.run_id
            for digest in weights
            for run in client.search_runs(experiments, f"tags.`{WEIGHTS}` = '{digest}' and tags.`{KIND}` = 'training'")
        ]
        versions = [
            f"{version.name}/{version.version}"
            for digest in weights
            for version in client.search_model_versions(f"tags.`{WEIGHTS}` = '{digest}'")
        ]
    found = {"model.run_id": ", ".join(trained), "model.version": ", ".join(versions)}
    return {key: value for key, value in found.items() if value}


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
