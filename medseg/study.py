"""From an experiment to a trained model: the experiment's words become the objects of the floors below.

A run's folder:

    runs/NAME-TIME/
      experiment.yaml   the experiment, resolved: all that is needed to run it again
      split.json        which cases were trained and validated on
      metrics.csv       the curves
      last.ckpt         what --resume goes on from
      model/            the best model's package
      validation/       its masks of the validation cases, their scores, and report.html
      initial.json      digests of the weights that it began with, where it did not begin with drawn ones
      tracking/         all that was logged, whether MLflow has it or not: medseg sync brings what is missing
      run.json          where the run is tracked
"""

from __future__ import annotations

import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import medseg
from medseg.data_section import segments_of, told
from medseg.datasets.case_names import MAP, files_by_case, write_map
from medseg.datasets.split import SPLIT, Split, read_split
from medseg.errors import MedsegError, OutputError
from medseg.experiment import CONFIG, Experiment, WebFile
from medseg.files import read_json, sha256_of, write_json, write_text
from medseg.fold_runs import FoldRuns
from medseg.geometry import Footprint
from medseg.inference.model import Model
from medseg.networks import build_network
from medseg.networks.network import Network
from medseg.networks.pretrained import load_pretrained
from medseg.networks.weight_files import cached, fetch
from medseg.open_data import OpenData
from medseg.package import ModelCard, read_card, write_package
from medseg.postprocessing.settings import check_steps
from medseg.tracking.applied import WEIGHTS
from medseg.tracking.courier import RUN
from medseg.tracking.describe import describe, facts_of, question_of, shares
from medseg.tracking.pictures import overlay, unpredicted
from medseg.tracking.run import Run
from medseg.tracking.spool import FOLDER as TRACKED
from medseg.tracking.store import Store
from medseg.training.augment import build_augmentation
from medseg.training.census import counts_of
from medseg.training.class_weights import fit_class_weights
from medseg.training.finetune import initialise_from
from medseg.training.fit import Fitted, Listeners, fit
from medseg.training.losses import build_loss
from medseg.training.phases import ALONE
from medseg.training.samples import SampleGeometry, TileSamples
from medseg.training.segmentation_loss import SegmentationLoss
from medseg.training.task import check_task
from medseg.training.validation import Validation, Validator

INITIAL = "initial.json"
SAMPLE_CORE = {2: 196, 3: 44}
"""What a sample is learned from where no window is given: small enough that a batch fits, large enough to fill it."""


def train(
    experiment: Experiment,
    folder: Path,
    device: torch.device,
    resume: bool = False,
    *,
    split: Split | None = None,
    parent: str | None = None,
) -> tuple[Path, Fitted]:
    """Trains an experiment in a run's folder; returns the model package and how it ended.

    Args:
        experiment: what is trained, on what.
        folder: the run's; see :func:`prepare_folder`.
        device: where the network runs.
        resume: go on with the run that the folder holds, with the split that it began with.
        split: how the cases are divided; None divides them as the experiment says.
        parent: the name of the tracked run that this one is a part of.

    Raises:
        MedsegError: for data, keys or a checkpoint that are wrong.
        KeyboardInterrupt: on Ctrl-C; the folder can be resumed.
    """
    try:
        return _trained(experiment, folder, device, resume, split, parent)
    finally:
        with suppress(OSError):
            folder.rmdir()  # an empty one alone goes: what was refused leaves nothing


def _trained(
    experiment: Experiment, folder: Path, device: torch.device, resume: bool, split: Split | None, parent: str | None
) -> tuple[Path, Fitted]:
    if split is None and resume and (folder / SPLIT).is_file():
        split = read_split(folder / SPLIT)
    data = OpenData.open(experiment, split)
    experiment = experiment.model_copy(update={"data": told(experiment.data, data.found)})
    check_steps(experiment.postprocessing, data.labels, experiment.network.dims)
    loss = build_loss(experiment.loss.model_dump())
    loss.learn_regions(data.labels)
    torch.manual_seed(experiment.seed)
    spec = {
        **experiment.network.arguments,
        "in_channels": data.channels,
        "out_channels": loss.channels(len(data.labels.targets)),
    }
    network = build_network(spec)
    check_task(network, experiment.training)
    geometry = SampleGeometry.of(network, window_of(experiment, network))
    inference = experiment.inference.resolved(network, list(geometry.window))
    begun = _begin(experiment, network, folder, resume)
    samples = _samples(experiment, data, geometry, loss)
    fit_class_weights(loss, data.labels.classes + 1, lambda: counts_of(samples.census))
    card = ModelCard(
        medseg=medseg.__version__,
        network=spec,
        activation=loss.activation,
        labels=data.labels.to_dict(),
        segments=segments_of(experiment.data, data.found.info, data.labels),
        preprocessing=data.preprocessing,
        inference=inference,
        postprocessing=experiment.postprocessing,
        channel_files=data.found.channel_files,
        window=list(geometry.window),
        mirrored=samples.augmentation.mirrored,
        fingerprint=data.fingerprint,
    )
    write_map(folder, files_by_case(data.found))
    write_text(folder / CONFIG, experiment.to_yaml())
    write_json(folder / SPLIT, data.split.to_dict())
    with _tracked(experiment, data, folder, device, resume, parent) as run, run.machine():
        listeners = _Listeners(run, folder, card, data, experiment.seed, begun)
        validator = Validator(
            data.validation(),
            data.labels,
            data.preprocessing,
            loss.activation,
            inference,
            device,
            experiment.tracking.pictures,
        )
        fitted = fit(
            network,
            loss,
            samples,
            validator,
            experiment.training,
            folder,
            Listeners(run.log, listeners.validated, listeners.improved),
            device,
            resume,
        )
        run.tags({"stopped": fitted.reason, WEIGHTS: read_card(folder / "model").weights_sha256})
        seconds = {**fitted.phases, "total": fitted.seconds}
        run.results({f"seconds/{phase}": spent for phase, spent in seconds.items()})
        run.artifact(folder / "model", "model")
        run.artifact(folder / "metrics.csv")
        about = _about(experiment, data, fitted)
        if not (experiment.tracking.review and _review(data, folder, device, fitted, run, about)):
            run.description(facts_of(about))
    return folder / "model", fitted


def _about(experiment: Experiment, data: OpenData, fitted: Fitted) -> dict[str, str]:
    """What a finished run is about, in words."""
    count = f"{len(data.split.train)} training and {len(data.split.validation)} validation cases"
    return {
        "data set": f"{data.name}, {count}",
        "network": experiment.network.name,
        "best validation Dice": f"{fitted.best:.4f}",
        "steps": str(fitted.steps),
        "stopped by": fitted.reason,
        "time": shares({phase: fitted.phases.get(phase, 0.0) for phase in ALONE}, fitted.seconds),
    }


def _review(
    data: OpenData, folder: Path, device: torch.device, fitted: Fitted, run: Run, about: dict[str, str]
) -> bool:
    """Looks back at the best model; whatever stands in the way of it costs no training.

    Returns:
        whether nothing did.
    """
    from medseg.tracking.review import review

    try:
        model = Model.load(folder / "model", device)
        found = review(model, [data.cases[name] for name in data.split.validation], folder, folder.name, about)
        places = found.log(run)
    except (MedsegError, OSError) as error:
        print(f"the model is whole, but its validation cases were not looked at again: {error}", file=sys.stderr)
        return False
    run.description(describe(found.report, about, places, found.page.name))
    print(f"report: {found.page}", file=sys.stderr)
    return True


def window_of(experiment: Experiment, network: Network) -> tuple[int, ...]:
    """The training window: the config's (one number an axis, or one for all), else one for :data:`SAMPLE_CORE`.

    Raises:
        TileError: where the network cannot take it.
    """
    window = experiment.training.window
    if window is not None:
        return tuple(window) * network.dims if len(window) == 1 else tuple(window)
    fields = network.fields
    padded = any(field.padded for field in fields)
    halo = tuple(0 if padded else field.halo for field in fields)
    shape = Footprint(halo, tuple(f.step for f in fields), tuple(f.offset for f in fields))
    return shape.input_shape((SAMPLE_CORE[network.dims],) * network.dims)


def prepare_folder(folder: Path, overwrite: bool) -> None:
    """Makes a run's folder.

    Raises:
        OutputError: where it holds a run already and is not to be overwritten.
    """
    held = [name for name in (CONFIG, "last.ckpt", "model", "metrics.csv") if (folder / name).exists()]
    if held and not overwrite:
        raise OutputError(
            f"{folder} holds a run already ({', '.join(held)}): --resume {folder} continues it, --overwrite replaces it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("last.ckpt", "metrics.csv", RUN, INITIAL, MAP):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / TRACKED, ignore_errors=True)
    FoldRuns.clear(folder)


def _begin(experiment: Experiment, network: Network, folder: Path, resume: bool) -> dict[str, Any]:
    """Puts the weights into the network that the config names, and says so; a run that goes on has its own already.

    Returns:
        their digests, which the package keeps.

    Raises:
        MedsegError: where they cannot be had, or do not fit.
    """
    where, begun = folder / INITIAL, {}
    if resume and (folder / "last.ckpt").exists():
        return dict(read_json(where, "what the run began with")) if where.exists() else {}
    if experiment.network.pretrained is not None:
        path = _weights(experiment.network.pretrained)
        taken = load_pretrained(network, path)
        print(f"network.pretrained: {taken}", file=sys.stderr)
        begun["pretrained"] = {"kind": taken.kind, "sha256": sha256_of(path)}
    if experiment.training.init_from is not None:
        inherited = initialise_from(network, experiment.training.init_from)
        print(f"training.init_from: {inherited}", file=sys.stderr)
        begun["init_from"] = {"name": inherited.name, "sha256": inherited.sha256}
    if begun:
        write_json(where, begun)
    return begun


def _weights(pretrained: WebFile | Path) -> Path:
    """The file of pretrained weights, fetched where it is a URL's and not yet here."""
    if isinstance(pretrained, Path):
        return pretrained
    if not cached(pretrained.sha256).exists():
        print(f"fetching {pretrained.url}", file=sys.stderr)
    return fetch(pretrained.url, pretrained.sha256)


def _samples(experiment: Experiment, data: OpenData, geometry: SampleGeometry, loss: SegmentationLoss) -> TileSamples:
    settings = experiment.training
    return TileSamples(
        data.training(int(settings.cache_mib * 2**20), settings.prepare),
        data.labels,
        geometry,
        build_augmentation(experiment.augmentation, len(geometry.window)),
        experiment.seed,
        settings.foreground_oversampling,
        loss,
    )


def _tracked(
    experiment: Experiment, data: OpenData, folder: Path, device: torch.device, resume: bool, parent: str | None
) -> Run:
    """The MLflow run: a new one, or the one that the folder keeps."""
    tags = {"medseg.kind": "training", "device": str(device), "dataset": data.name, "dataset.digest": data.digest}
    if data.split.fold is not None:
        tags["fold"] = str(data.split.fold)
    question = question_of(data.name, list(data.labels.targets))
    run = start_run(experiment, question, folder, resume, tags, parent)
    run.dataset(data.name, data.digest, data.name, profile=_profile(data))
    return run


def start_run(
    experiment: Experiment, question: str, folder: Path, resume: bool, tags: dict[str, str], parent: str | None = None
) -> Run:
    """The MLflow run of a folder that holds a split: a new one, or the one that the folder keeps.

    Args:
        experiment: whose store and MLflow experiment count.
        question: the MLflow experiment where it names none.
        folder: the run's.
        resume: go on with the run that the folder keeps.
        tags: beside the seed.
        parent: the name of the run that this one is a part of.

    Raises:
        MedsegError: where the store is none.
    """
    where = folder / RUN
    known = read_json(where, "the run's place in MLflow") if resume and where.exists() else {}
    store = Store.resolve(known.get("store") or experiment.tracking.uri)
    # A password in the address is nobody's who reads the run.
    public = experiment.model_copy(update={"tracking": experiment.tracking.model_copy(update={"uri": store.shown})})
    run = Run.start(
        store,
        experiment.tracking.experiment or question,
        folder.name,
        public.model_dump(mode="json"),
        {"seed": str(experiment.seed), **tags},
        folder,
        parent,
    )
    run.text(public.to_yaml(), CONFIG)
    run.artifact(folder / SPLIT)
    return run


def _profile(data: OpenData) -> dict[str, Any]:
    """What MLflow shows of a data set."""
    parts = {"training": data.split.train, "validation": data.split.validation, "test": data.split.test}
    return {"cases": {part: len(names) for part, names in parts.items()}, "labels": list(data.labels.targets)}


@dataclass(frozen=True)
class _Listeners:
    """What a validation leaves behind: pictures, a table, and the package of the best."""

    run: Run
    folder: Path
    card: ModelCard
    data: OpenData
    seed: int
    begun: dict[str, Any]

    def validated(self, validation: Validation, step: int) -> None:
        self.run.table("validation", [score.row() for score in validation.scores], step)
        for picture in validation.pictures:
            path = f"overlay/{picture.name}"
            if not self.run.pictured(path):  # the slider begins at step 0
                self.run.picture(unpredicted(picture.image, picture.reference), path, 0)
            self.run.picture(overlay(picture.image, picture.reference, picture.prediction), path, step)

    def improved(self, network: Network, step: int, metrics: dict[str, float]) -> None:
        training: dict[str, Any] = {
            "dataset": self.data.name,
            "dataset_digest": self.data.digest,
            "seed": self.seed,
            "step": step,
            **self.begun,
            **metrics,
        }
        write_package(self.folder / "model", network, self.card.model_copy(update={"training": training}))
