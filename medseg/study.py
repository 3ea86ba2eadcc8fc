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
      run.json          where the run is tracked
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import medseg
from medseg.errors import MedsegError, OutputError
from medseg.experiment import Experiment, WebFile
from medseg.files import read_json, sha256_of, write_json, write_text
from medseg.geometry import Footprint
from medseg.inference.model import Model
from medseg.networks import build_network
from medseg.networks.network import Network
from medseg.networks.pretrained import load_pretrained
from medseg.networks.weight_files import cached, fetch
from medseg.open_data import OpenData
from medseg.package import ModelCard, write_package
from medseg.postprocessing.settings import check_steps
from medseg.tracking.pictures import overlay
from medseg.tracking.run import Run
from medseg.tracking.store import Store
from medseg.training.augment import build_augmentation
from medseg.training.census import counts_of
from medseg.training.class_weights import fit_class_weights
from medseg.training.finetune import initialise_from
from medseg.training.fit import Fitted, Listeners, fit
from medseg.training.losses import build_loss
from medseg.training.samples import SampleGeometry, TileSamples
from medseg.training.segmentation_loss import SegmentationLoss
from medseg.training.task import check_task
from medseg.training.validation import Validation, Validator

INITIAL = "initial.json"
SAMPLE_CORE = {2: 196, 3: 44}
"""What a sample is learned from where no window is given: small enough that a batch fits, large enough to fill it."""


def train(experiment: Experiment, folder: Path, device: torch.device, resume: bool = False) -> tuple[Path, Fitted]:
    """Trains an experiment in a run's folder; returns the model package and how it ended.

    Raises:
        MedsegError: for data, keys or a checkpoint that are wrong.
        KeyboardInterrupt: on Ctrl-C; the folder can be resumed.
    """
    data = OpenData.open(experiment)
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
    begun = _begin(experiment, network, folder, resume)
    geometry = SampleGeometry.of(network, window_of(experiment, network))
    inference = experiment.inference.resolved(network, list(geometry.window))
    samples = _samples(experiment, data, geometry, loss)
    fit_class_weights(loss, data.labels.classes + 1, lambda: counts_of(samples.census))
    card = ModelCard(
        medseg=medseg.__version__,
        network=spec,
        activation=loss.activation,
        labels=data.labels.to_dict(),
        preprocessing=data.preprocessing,
        inference=inference,
        postprocessing=experiment.postprocessing,
        channel_files=data.found.channel_files,
        window=list(geometry.window),
    )
    write_text(folder / "experiment.yaml", experiment.to_yaml())
    write_json(folder / "split.json", data.split.to_dict())
    with _tracked(experiment, data, folder, device, resume) as run:
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
        run.tags({"stopped": fitted.reason})
        run.artifact(folder / "model", "model")
        run.artifact(folder / "metrics.csv")
        if experiment.tracking.review:
            _review(data, folder, device, fitted, run)
    return folder / "model", fitted


def _review(data: OpenData, folder: Path, device: torch.device, fitted: Fitted, run: Run) -> None:
    """Looks back at the best model; whatever stands in the way of it costs no training."""
    from medseg.tracking.review import review

    about = {
        "data set": data.name,
        "validation cases": str(len(data.split.validation)),
        "steps": str(fitted.steps),
        "stopped by": fitted.reason,
    }
    try:
        model = Model.load(folder / "model", device)
        found = review(model, [data.cases[name] for name in data.split.validation], folder, folder.name, about)
        found.log(run, fitted.steps)
    except (MedsegError, OSError) as error:
        print(f"the model is whole, but its validation cases were not looked at again: {error}", file=sys.stderr)
    else:
        print(f"report: {found.page}", file=sys.stderr)


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
    held = [name for name in ("experiment.yaml", "last.ckpt", "model", "metrics.csv") if (folder / name).exists()]
    if held and not overwrite:
        raise OutputError(
            f"{folder} holds a run already ({', '.join(held)}): --resume {folder} continues it, --overwrite replaces it"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("last.ckpt", "metrics.csv", "run.json", INITIAL):
        (folder / name).unlink(missing_ok=True)


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
        data.training(int(settings.cache_mib * 2**20)),
        data.labels,
        geometry,
        build_augmentation(experiment.augmentation, len(geometry.window)),
        experiment.seed,
        settings.foreground_oversampling,
        loss,
    )


def _tracked(experiment: Experiment, data: OpenData, folder: Path, device: torch.device, resume: bool) -> Run:
    """The MLflow run: a new one, or the one that the folder names."""
    where = folder / "run.json"
    known = read_json(where, "the run's place in MLflow") if resume and where.exists() else {}
    run = Run.start(
        Store.resolve(known.get("store") or experiment.tracking.uri),
        experiment.tracking.experiment or experiment.name,
        folder.name,
        experiment.model_dump(mode="json"),
        {"seed": str(experiment.seed), "device": str(device), "dataset": data.name, "dataset.digest": data.digest},
        known.get("run_id"),
    )
    write_json(where, {"store": run.store.uri, "run_id": run.id})
    run.dataset(data.name, data.digest, data.name)
    run.artifact(folder / "experiment.yaml")
    run.artifact(folder / "split.json")
    return run


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
            self.run.picture(
                overlay(picture.image, picture.reference, picture.prediction), f"overlay/{picture.name}", step
            )

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
