"""From an experiment to a trained model: the experiment's words become the objects of the floors below.

A run's folder:

    runs/NAME-TIME/
      experiment.yaml   the experiment, resolved: all that is needed to run it again
      split.json        which cases were trained and validated on
      metrics.csv       the curves
      last.ckpt         what --resume goes on from
      model/            the best model's package
      run.json          where the run is tracked
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

import medseg
from medseg.datasets.cases import Case, DatasetInfo, digest, find_cases, read_dataset
from medseg.datasets.check import check_case, open_label
from medseg.datasets.labels import Labels
from medseg.datasets.split import Split, make_split
from medseg.errors import ConfigError, OutputError, nearest
from medseg.experiment import Data, Experiment
from medseg.files import read_json, write_json, write_text
from medseg.geometry import Footprint
from medseg.networks import build_network
from medseg.networks.network import Network
from medseg.package import ModelCard, write_package
from medseg.scans.preprocessing import Preprocessing
from medseg.scans.scan import Scan, open_scan
from medseg.tracking.pictures import overlay
from medseg.tracking.run import Run
from medseg.tracking.store import Store
from medseg.training.augment import build_augmentation
from medseg.training.fit import Fitted, Listeners, fit
from medseg.training.losses import SegmentationLoss, build_loss
from medseg.training.samples import SampleGeometry, TileSamples, TrainingCase
from medseg.training.validation import Validation, ValidationCase, Validator

SAMPLE_CORE = {2: 196, 3: 44}
"""What a sample is learned from where no window is given: small enough that a batch fits, large enough to fill it."""


@dataclass(frozen=True)
class OpenData:
    """A data set as an experiment sees it.

    Attributes:
        root: its folder.
        info: what ``dataset.json`` says, or None.
        labels: the config's, else the data set's.
        cases: every labelled case.
        split: theirs.
        preprocessing: fitted to the training scans.
    """

    root: Path
    info: DatasetInfo | None
    labels: Labels
    cases: dict[str, Case]
    split: Split
    preprocessing: Preprocessing

    @classmethod
    def open(cls, experiment: Experiment) -> OpenData:
        """Finds, checks and divides the cases; a phantom is made on first use.

        Raises:
            MedsegError: for the first file or key that is wrong.
        """
        data = experiment.data
        root = data_root(data)
        info = read_dataset(root)
        labels = labels_of(data, info, root)
        patients = info.patients if info is not None else None
        cases = {case.name: case for case in find_cases(root, patients=patients)}
        split = make_split(
            cases.values(), validation=data.validation, test=data.test, train=data.train, seed=experiment.seed
        )
        used = [cases[name] for name in (*split.train, *split.validation)]
        dims = experiment.network.dims
        channels = open_scan(used[0].image).channels
        for case in used:
            check_case(case, labels, channels, dims)
        training = [experiment.preprocessing.grid(open_scan(cases[n].image)) for n in split.train]
        normalize = experiment.preprocessing.normalize.fitted(training)
        fitted = experiment.preprocessing.model_copy(update={"normalize": normalize})
        return cls(root, info, labels, cases, split, fitted)

    @property
    def name(self) -> str:
        """The data set's own name, or its folder's."""
        return (self.info.name if self.info is not None else "") or self.root.resolve().name

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return open_scan(self.cases[self.split.train[0]].image).channels

    @cached_property
    def digest(self) -> str:
        """Of names and contents of the cases that are used."""
        return digest([self.cases[name] for name in (*self.split.train, *self.split.validation)])

    def training(self, cache: int) -> list[TrainingCase]:
        """The training cases on the model's grid, in memory as far as ``cache`` bytes go."""
        opened = []
        for name in self.split.train:
            case = TrainingCase(
                name, self.preprocessing.view(self._image(name)), self.preprocessing.grid(self._label(name), "nearest")
            )
            if case.nbytes <= cache:
                cache -= case.nbytes
                case = case.cached()
            opened.append(case)
        return opened

    def validation(self) -> list[ValidationCase]:
        """The validation cases as their files are."""
        return [ValidationCase(n, self._image(n), self._label(n)) for n in self.split.validation]

    def _image(self, name: str) -> Scan:
        return open_scan(self.cases[name].image)

    def _label(self, name: str) -> Scan:
        label = self.cases[name].label
        if label is None:
            raise ConfigError(f"case {name} has no label in {self.root / 'labels'}")
        return open_label(label)


def data_root(data: Data) -> Path:
    """The data set's folder; a phantom is made there where there is none yet.

    Raises:
        ConfigError: where neither a root nor a phantom is given, or the root does not exist.
    """
    if data.root is None and data.phantom is None:
        raise ConfigError("data.root is missing: give the folder that holds images/ and labels/, as data.root=FOLDER")
    root = data.root or Path("data") / f"phantom-{data.phantom.kind}"  # type: ignore[union-attr]
    if root.exists():
        return root
    if data.phantom is None:
        beside = [p.name for p in root.parent.iterdir() if p.is_dir()] if root.parent.is_dir() else []
        raise ConfigError(f"data.root {root} does not exist{nearest(root.name, beside)}")
    from medseg.datasets.phantom import write_phantom

    phantom = data.phantom
    print(f"making {phantom.cases} cases of the phantom {phantom.kind} in {root}", file=sys.stderr)
    return write_phantom(phantom.kind, root, phantom.cases, tuple(phantom.size), phantom.seed)


def labels_of(data: Data, info: DatasetInfo | None, root: Path) -> Labels:
    """The config's labels where it names them, else the data set's own.

    Raises:
        ConfigError: where neither says what the values in the label files mean.
    """
    known = data.labels or (dict(info.labels) if info is not None else None)
    if known is None:
        raise ConfigError(
            f"{root} has no dataset.json and the config no data.labels: name the values in the label files, "
            "as in labels: {background: 0, lesion: 1}"
        )
    own = info.label_map if info is not None else None
    foreground = data.foreground or (own.foreground if own is not None and data.labels is None else ())
    instances = data.instances if data.instances is not None else bool(own is not None and own.instances)
    return Labels(known, tuple(foreground), instances)


def train(experiment: Experiment, folder: Path, device: torch.device, resume: bool = False) -> tuple[Path, Fitted]:
    """Trains an experiment in a run's folder; returns the model package and how it ended.

    Raises:
        MedsegError: for data, keys or a checkpoint that are wrong.
        KeyboardInterrupt: on Ctrl-C; the folder can be resumed.
    """
    data = OpenData.open(experiment)
    loss = build_loss(experiment.loss.model_dump())
    torch.manual_seed(experiment.seed)
    spec = {
        **experiment.network.model_dump(),
        "in_channels": data.channels,
        "out_channels": loss.channels(data.labels.classes),
    }
    network = build_network(spec)
    geometry = SampleGeometry.of(network, window_of(experiment, network))
    inference = experiment.inference.resolved(network, list(geometry.window))
    samples = _samples(experiment, data, geometry, loss)
    card = ModelCard(
        medseg=medseg.__version__,
        network=spec,
        activation=loss.activation,
        labels=data.labels.to_dict(),
        preprocessing=data.preprocessing,
        inference=inference,
        window=list(geometry.window),
    )
    write_text(folder / "experiment.yaml", experiment.to_yaml())
    write_json(folder / "split.json", data.split.to_dict())
    with _tracked(experiment, data, folder, device, resume) as run:
        listeners = _Listeners(run, folder, card, data, experiment.seed)
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
    return folder / "model", fitted


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
    for name in ("last.ckpt", "metrics.csv", "run.json"):
        (folder / name).unlink(missing_ok=True)


def _samples(experiment: Experiment, data: OpenData, geometry: SampleGeometry, loss: SegmentationLoss) -> TileSamples:
    settings = experiment.training
    return TileSamples(
        data.training(int(settings.cache_mib * 2**20)),
        data.labels,
        geometry,
        build_augmentation(experiment.augmentation, len(geometry.window)),
        experiment.seed,
        settings.foreground_oversampling,
        loss.needs_weight_map,
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
            **metrics,
        }
        write_package(self.folder / "model", network, self.card.model_copy(update={"training": training}))
