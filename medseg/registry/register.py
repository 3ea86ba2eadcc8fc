"""A run's model gets a name in MLflow's registry: once for each content, whole or not at all.

The MLflow model is written here, uploaded as a logged model of the run, and only then becomes a version; the version
gets its tags with it, and an alias moves to it last. What an interruption leaves is a logged model without a version,
which no address names.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from medseg.errors import PackageError
from medseg.files import read_json
from medseg.fold_runs import FoldRuns
from medseg.package import WEIGHTS, ModelCard, check_weights, find_package, read_card
from medseg.registry.address import SCHEME, check_alias, check_name
from medseg.registry.fetch import DIGEST, package_digest
from medseg.registry.mlflow_model import skeleton, write_mlflow_model
from medseg.registry.registry import Registry
from medseg.tracking.courier import RUN
from medseg.tracking.names import TAG_LENGTH, TAG_NAME_LENGTH, clean, cut
from medseg.tracking.scores import search_run
from medseg.tracking.store import Store, missing

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

EXPERIMENT = "models"
"""MLflow's experiment of models whose run is not in the store."""
SCORES = "val/"
"""How the scores in a card's account of its training begin."""


@dataclass(frozen=True)
class Candidate:
    """A model that is to be registered.

    Attributes:
        package: its folder.
        store: where it is to be registered.
        run_id: the run of that store that it came from, where there is one.
    """

    package: Path
    store: Store
    run_id: str | None = None


@dataclass(frozen=True)
class Registered:
    """What became of a model.

    Attributes:
        name: the registered model's.
        version: its number.
        existing: whether a version of the same content was there already.
        moved: the version that each alias pointed to before; None where it is new.
    """

    name: str
    version: int
    existing: bool
    moved: Mapping[str, int | None]

    @property
    def address(self) -> str:
        """By which the version is asked for, whatever aliases do: ``models:/NAME/3``."""
        return f"{SCHEME}{self.name}/{self.version}"


@contextlib.contextmanager
def candidate(word: str, store: str | None = None) -> Iterator[Candidate]:
    """The model that a word means: a run's folder, a package, an address in a registry, or a run's id or name.

    A run that is in MLflow alone is downloaded, for as long as the block lasts.

    Args:
        word: what was said.
        store: where it is to be registered; None for the run's own store, else the default one.

    Raises:
        MedsegError: where it means none of these, or a run that has no model.
    """
    path = Path(word)
    if path.exists() or word.startswith(SCHEME):
        yield _of_folder(path, store)
        return
    place, client, run = search_run(word, Store.resolve(store))
    with TemporaryDirectory() as made, place.explained(f"does not give the model of the run {run.info.run_name}"):
        if "model" not in {file.path for file in client.list_artifacts(run.info.run_id)}:
            raise _no_model(f"the run {run.info.run_name} in {place.shown}", run.data.tags.get("medseg.kind"))
        package = Path(client.download_artifacts(run.info.run_id, "model", made))
        yield Candidate(find_package(package), place, str(run.info.run_id))


def _of_folder(path: Path, store: str | None) -> Candidate:
    run = next((folder / RUN for folder in (path, path.parent) if (folder / RUN).is_file()), None)
    alone = run is not None and run.parent == path and not (path / "model").is_dir()
    if alone and not FoldRuns.are_in(path):
        raise _no_model(str(path))
    package = find_package(path)
    place = read_json(run, "the run's place in MLflow") if run is not None else {}
    known = {key: str(place[key]) for key in ("store", "run_id") if isinstance(place, dict) and place.get(key)}
    where = Store.resolve(store or known.get("store"))
    own = "store" in known and Store.resolve(known["store"]) == where
    return Candidate(package, where, known.get("run_id") if own else None)


def _no_model(run: str, kind: str | None = None) -> PackageError:
    if kind not in (None, "training"):
        rest = "register one of its folds" if kind == "cross-validation" else "register the training run of its model"
        return PackageError(f"{run} has no model, since it is no training ({kind}): {rest}")
    return PackageError(
        f"{run} has no model: it ended before its first validation, which keeps the best weights; resume the run, or "
        "register another one"
    )


def register(model: Candidate, name: str, aliases: tuple[str, ...] = (), anew: bool = False) -> Registered:
    """Makes a model a version of a registered model.

    Args:
        model: what to register.
        name: the registered model's, made where there is none.
        aliases: these point to the version afterwards.
        anew: make a version even where one of the same content is there.

    Returns:
        the version: the one that is there already, where its package is the same.

    Raises:
        MedsegError: for a name or alias that cannot be one, a package that is damaged, or a store that refuses.
    """
    check_name(name)
    for alias in aliases:
        check_alias(alias)
    card = read_card(model.package)
    check_weights(model.package / WEIGHTS, card.weights_sha256)
    registry = Registry(model.store, model.store.client())
    _make(registry, name)
    digest = package_digest(model.package)
    same = [] if anew else [v for v in registry.versions(name) if v.tags.get(DIGEST) == digest]
    version = int((same[0] if same else _create(registry, model, name, card, digest)).version)
    return Registered(name, version, bool(same), _point(registry, name, version, aliases))


def _make(registry: Registry, name: str) -> None:
    """Makes the registered model, where there is none of that name."""
    from mlflow.exceptions import MlflowException

    with registry.asked(f"models:/{name}"):
        try:
            registry.client.get_registered_model(name)
        except MlflowException as problem:
            if not missing(problem):
                raise
            with contextlib.suppress(MlflowException):  # another process was faster
                registry.client.create_registered_model(name)
            registry.client.get_registered_model(name)


def _create(registry: Registry, model: Candidate, name: str, card: ModelCard, digest: str) -> ModelVersion:
    """Uploads the MLflow model, and makes it a version once it is whole."""
    from mlflow.entities import LoggedModelOutput

    client = registry.client
    tags = {DIGEST: digest, **tags_of(card)}
    run_id = model.run_id if _has(client, model.run_id) else None
    with TemporaryDirectory() as made, registry.asked(f"a version of models:/{name}"):
        folder = write_mlflow_model(model.package, Path(made) / "model")
        if run_id is None:
            experiment = model.store.experiment(client, EXPERIMENT)
        else:
            experiment = client.get_run(run_id).info.experiment_id
        with _logged(client, experiment, name, run_id, tags) as model_id:
            client.log_model_artifacts(model_id, str(folder))
            location = client.finalize_logged_model(model_id, "READY").artifact_location
            if run_id is not None:
                client.log_outputs(run_id, [LoggedModelOutput(model_id, int(card.training.get("step", 0)))])
        # MLflow looks a model without a run up in the process's default store, which need not be this one.
        linked = model_id if run_id is not None or model.store.remote else None
        return client.create_model_version(
            name, location, run_id, tags=tags, description=describe(card), model_id=linked
        )


@contextlib.contextmanager
def _logged(
    client: MlflowClient, experiment: str, name: str, run_id: str | None, tags: Mapping[str, str]
) -> Iterator[str]:
    """A new logged model's id; it is marked as failed where the block is."""
    model = client.create_logged_model(experiment, name, run_id, tags=dict(tags), model_type="segmentation")
    try:
        yield model.model_id
    except BaseException:
        with contextlib.suppress(Exception):
            client.finalize_logged_model(model.model_id, "FAILED")
        raise


def _has(client: MlflowClient, run_id: str | None) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        return run_id is not None and client.get_run(run_id).info.lifecycle_stage == "active"
    except MlflowException as problem:
        if missing(problem):
            return False
        raise


def _point(registry: Registry, name: str, version: int, aliases: tuple[str, ...]) -> dict[str, int | None]:
    """Lets aliases point to a version; returns what each pointed to."""
    before = registry.model(name).aliases
    for alias in aliases:
        with registry.asked(f"the alias {name}@{alias}"):
            registry.client.set_registered_model_alias(name, alias, str(version))
    return {alias: int(before[alias]) if alias in before else None for alias in aliases}


def tags_of(card: ModelCard) -> dict[str, str]:
    """What a version says of itself in MLflow's table: digests, network, footprint, labels and scores."""
    footprint = skeleton(card).footprint
    about: dict[str, Any] = {
        "medseg.version": card.medseg,
        "medseg.weights": card.weights_sha256,
        "medseg.network": card.network["name"],
        "medseg.labels": ", ".join(card.label_map.targets),
        "footprint.halo": list(footprint.halo),
        "footprint.step": list(footprint.step),
        "footprint.offset": list(footprint.offset),
        "footprint.exact": footprint.exact,
        "dataset.name": card.training.get("dataset"),
        "dataset.digest": card.training.get("dataset_digest"),
        "seed": card.training.get("seed"),
        "step": card.training.get("step"),
        **{f"score.{key.removeprefix(SCORES)}": f"{value:.6g}" for key, value in scores_of(card).items()},
    }
    return {
        clean(key, TAG_NAME_LENGTH): cut(value if isinstance(value, str) else json.dumps(value), TAG_LENGTH)
        for key, value in about.items()
        if value is not None
    }


def scores_of(card: ModelCard) -> dict[str, float]:
    """What the best weights scored on the validation cases, as ``val/dice_mean``."""
    return {
        key: float(value)
        for key, value in card.training.items()
        if key.startswith(SCORES) and isinstance(value, int | float)
    }


def describe(card: ModelCard) -> str:
    """A version in Markdown, for its page."""
    network = skeleton(card)
    lines = [
        f"**{card.network['name']}**, {network.dims}D, {network.in_channels} channels; segments "
        + ", ".join(card.label_map.targets),
        f"data set {card.training.get('dataset', 'unknown')}",
        *(f"{key.removeprefix(SCORES)} {value:.4g}" for key, value in scores_of(card).items()),
    ]
    return "\n".join(f"- {line}" for line in lines)
