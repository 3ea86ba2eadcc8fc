"""A registry of models, asked with sentences for answers: what is there, and what is not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medseg.errors import MedsegError, nearest, some
from medseg.registry.address import Address
from medseg.tracking.store import Store, missing

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion, RegisteredModel

MOST_NAMES = 1000
DENIED = (401, 403)
"""The answers of a server that knows neither or not enough of who asks."""


@dataclass(frozen=True)
class Registry:
    """The registered models of a store.

    Attributes:
        store: which one.
        client: of it.
    """

    store: Store
    client: MlflowClient

    @classmethod
    def open(cls, store: Store) -> Registry:
        """The registry of a store that is there; none is made.

        Raises:
            MedsegError: where there is none, or it cannot be opened.
        """
        if store.database is not None and not store.database.exists():
            raise MedsegError(
                f"there is no tracking store at {store.database}: register a model first, or name the store that keeps "
                "it with MLFLOW_TRACKING_URI"
            )
        return cls(store, store.client())

    @contextlib.contextmanager
    def asked(self, what: str) -> Iterator[None]:
        """Turns whatever is raised within into one sentence about this registry and ``what`` was asked of it."""
        from mlflow.exceptions import MlflowException

        try:
            with self.store.explained(f"refuses {what}"):
                yield
        except MedsegError as problem:
            cause = problem.__cause__
            if isinstance(cause, PermissionError) or (
                isinstance(cause, MlflowException) and cause.get_http_status_code() in DENIED
            ):
                raise MedsegError(
                    f"{self.store.shown} does not let you have {what}: set MLFLOW_TRACKING_USERNAME and "
                    "MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN), or ask those who keep it for the permission "
                    "to read it"
                ) from cause
            raise

    def model(self, name: str) -> RegisteredModel:
        """A registered model.

        Raises:
            MedsegError: where there is none of that name, with the nearest.
        """
        from mlflow.exceptions import MlflowException

        with self.asked(f"models:/{name}"):
            try:
                return self.client.get_registered_model(name)
            except MlflowException as problem:
                if not missing(problem):
                    raise
            names = [model.name for model in self.client.search_registered_models(max_results=MOST_NAMES)]
        there = f"; it has {some(names, 6)}" if names else "; it has none yet: medseg register RUN --name NAME"
        raise MedsegError(f"no model {name!r} is registered in {self.store.shown}{nearest(name, names)}{there}")

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a registered model, the latest first."""
        with self.asked(f"the versions of models:/{name}"):
            quoted = name.replace("'", "''")
            found = list(self.client.search_model_versions(f"name = '{quoted}'"))
        return sorted(found, key=lambda version: -int(version.version))

    def version(self, address: Address) -> ModelVersion:
        """The version that an address means.

        Raises:
            MedsegError: where there is no such model, alias or version, with those that there are.
        """
        model = self.model(address.name)
        number = address.version if address.alias is None else self._aliased(model, address.alias)
        found = self.versions(address.name)
        wanted = [version for version in found if number is None or int(version.version) == number]
        if not wanted:
            numbers = [str(version.version) for version in found]
            raise MedsegError(
                f"{address} is not there: {address.name} has "
                + (f"the versions {some(numbers, 8)}" if numbers else "no versions: register one")
            )
        return wanted[0]

    def _aliased(self, model: RegisteredModel, alias: str) -> int:
        aliases = {name: int(version) for name, version in model.aliases.items()}
        if alias not in aliases:
            said = ", ".join(f"{name} (version {version})" for name, version in sorted(aliases.items())[:8])
            raise MedsegError(
                f"{model.name} has no alias {alias!r}{nearest(alias, aliases)}; "
                + (
                    f"it has {said}"
                    if said
                    else f"it has none: medseg register RUN --name {model.name} --alias {alias}"
                )
            )
        return aliases[alias]
