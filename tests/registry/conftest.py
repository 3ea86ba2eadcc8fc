"""One store, and one model that is registered in it; making a store takes MLflow seconds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from small_packages import write_model

from medseg.files import write_json
from medseg.registry.register import Registered, candidate, register
from medseg.tracking.store import Store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with a run, in a folder with a space in its name."""
    made = Store.resolve("sqlite:///mlflow.db", tmp_path_factory.mktemp("a registry"))
    made.client()
    return made


@pytest.fixture(scope="session")
def run(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder: its package, and its place in the store."""
    client = store.client()
    folder = tmp_path_factory.mktemp("runs") / "cells"
    write_model(folder / "model")
    run = client.create_run(store.experiment(client, "cells"), run_name="cells-run")
    client.log_artifacts(run.info.run_id, str(folder / "model"), "model")
    write_json(folder / "run.json", {"store": store.uri, "run_id": run.info.run_id})
    return folder


@pytest.fixture(scope="session")
def registered(run: Path) -> Registered:
    """The run's model as version 1 of «cells», which champion points to."""
    with candidate(str(run)) as model:
        return register(model, "cells", ("champion",))


@pytest.fixture
def default(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store as the default one."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    return store


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("MEDSEG_CACHE", str(tmp_path / "cache"))
    os.makedirs(tmp_path / "cache", mode=0o700)
    return tmp_path / "cache"
