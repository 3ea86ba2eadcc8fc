"""Registering: once for each content, whole or not at all, with what a reader of MLflow's table asks for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from small_packages import write_model

from medseg.cli.app import main
from medseg.errors import MedsegError
from medseg.files import sha256_of, write_json
from medseg.fold_runs import FoldRuns
from medseg.package import WEIGHTS
from medseg.registry import register as register_module
from medseg.registry.fetch import package_digest
from medseg.registry.register import EXPERIMENT, Candidate, Registered, candidate, register
from medseg.tracking.store import Store


def versions(store: Store, name: str) -> list:
    return store.client().search_model_versions(f"name = '{name}'")


def test_a_version_says_what_it_is(registered: Registered, run: Path, store: Store) -> None:
    version = store.client().get_model_version_by_alias("cells", "champion")
    assert (version.version, registered.version, registered.existing) == (1, 1, False)
    tags = version.tags
    assert tags["medseg.weights"] == sha256_of(run / "model" / WEIGHTS)
    assert tags["medseg.package"] == package_digest(run / "model")
    assert (tags["dataset.digest"], tags["dataset.name"]) == ("d" * 64, "cells")
    assert float(tags["score.dice/cell"]) == 0.75
    assert json.loads(tags["footprint.halo"]) == [8, 8]
    assert json.loads(tags["footprint.exact"]) is True
    assert version.run_id == json.loads((run / "run.json").read_text())["run_id"]
    assert "unet" in version.description


def test_the_run_shows_its_model(registered: Registered, run: Path, store: Store) -> None:
    run_id = json.loads((run / "run.json").read_text())["run_id"]
    outputs = store.client().get_run(run_id).outputs.model_outputs
    logged = [store.client().get_logged_model(output.model_id) for output in outputs]
    assert [(model.name, str(model.status)) for model in logged] == [("cells", "READY")]


def test_the_same_content_is_registered_once(registered: Registered, run: Path, store: Store, tmp_path: Path) -> None:
    copied = shutil.copytree(run / "model", tmp_path / "copy")
    again = register(Candidate(copied, store), "cells", ("stable",))
    assert (again.version, again.existing, again.moved) == (1, True, {"stable": None})
    assert len(versions(store, "cells")) == 1
    assert store.client().get_model_version_by_alias("cells", "stable").version == 1


def test_other_content_is_another_version_and_the_alias_moves(store: Store, tmp_path: Path) -> None:
    first = register(Candidate(write_model(tmp_path / "a"), store), "moving", ("champion",))
    second = register(Candidate(write_model(tmp_path / "b", window=[32, 32]), store), "moving", ("champion",))
    assert (first.version, second.version) == (1, 2)
    assert second.moved == {"champion": 1}
    assert store.client().get_model_version_by_alias("moving", "champion").version == 2
    anew = register(Candidate(tmp_path / "a", store), "moving", anew=True)
    assert (anew.version, anew.existing) == (3, False)
    version = versions(store, "moving")[0]
    assert version.run_id in (None, "")
    assert f"/{EXPERIMENT}/" in version.source


@pytest.mark.parametrize("where", ["write_mlflow_model", "describe"])
def test_an_interruption_leaves_no_version(
    where: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    model = Candidate(write_model(tmp_path / "a"), store)
    with monkeypatch.context() as patch:
        patch.setattr(register_module, where, interrupted)
        with pytest.raises(KeyboardInterrupt):
            register(model, f"cut-{where}", ("champion",))
    assert versions(store, f"cut-{where}") == []
    assert store.client().get_registered_model(f"cut-{where}").aliases == {}
    assert register(model, f"cut-{where}", ("champion",)).version == 1


def test_a_run_that_is_in_mlflow_alone_is_downloaded(registered: Registered, run: Path, default: Store) -> None:
    run_id = json.loads((run / "run.json").read_text())["run_id"]
    for word in ("cells-run", run_id):
        with candidate(word) as model:
            assert model.run_id == run_id
            assert package_digest(model.package) == package_digest(run / "model")
            assert register(model, "cells").existing


def test_a_folder_goes_to_its_own_store_or_the_one_that_is_named(
    run: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for word in (run, run / "model"):
        with candidate(str(word)) as model:
            assert (model.store, model.run_id is not None) == (store, True)
    with candidate(str(run), "sqlite:///other.db") as model:
        assert (model.store.database, model.run_id) == (tmp_path / "other.db", None)


def test_a_run_without_a_model_is_refused(store: Store, tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"store": store.uri, "run_id": "0"})
    with (
        pytest.raises(MedsegError, match="has no model: it ended before its first validation"),
        candidate(str(tmp_path)),
    ):
        pass
    client = store.client()
    client.create_run(store.experiment(client, "empty"), run_name="early")
    with pytest.raises(MedsegError, match=r"the run early .* has no model"), candidate("early", store.uri):
        pass
    with pytest.raises(MedsegError, match="did you mean 'early'"), candidate("earlyy", store.uri):
        pass
    client.create_run(store.experiment(client, "empty"), run_name="scores", tags={"medseg.kind": "evaluation"})
    with pytest.raises(MedsegError, match=r"evaluation.*register the training run"), candidate("scores", store.uri):
        pass


def test_a_cross_validation_names_its_folds(run: Path, tmp_path: Path) -> None:
    FoldRuns(tmp_path, 2, {}).write()
    write_json(tmp_path / "run.json", {"store": "sqlite:///x.db", "run_id": "0"})
    shutil.copytree(run / "model", tmp_path / "fold1" / "model")
    with pytest.raises(MedsegError, match=r"for each of 1 folds: name one, such as .*fold1"), candidate(str(tmp_path)):
        pass


def test_damaged_weights_are_not_registered(store: Store, tmp_path: Path) -> None:
    package = write_model(tmp_path / "a")
    (package / WEIGHTS).write_bytes(b"no weights")
    with pytest.raises(MedsegError, match="SHA-256 differs"):
        register(Candidate(package, store), "damaged")
    with pytest.raises(MedsegError, match="no model 'damaged' is registered"):
        from medseg.registry.registry import Registry

        Registry.open(store).model("damaged")


def test_the_command(registered: Registered, run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    capsys.readouterr()
    assert main(["register", str(run), "--name", "cells", "--alias", "champion"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == ["models:/cells/1", "models:/cells@champion"]
    assert "same content already" in err
    assert main(["register", str(run), "--name", "cells", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "name": "cells",
        "version": 1,
        "address": "models:/cells/1",
        "existing": True,
        "aliases": {},
    }
    for words, said in (
        ([str(run)], "add --name NAME"),
        ([str(run), "--name", "a/b"], "cannot name a registered model"),
        ([str(run), "--name", "a", "--alias", "v1"], "cannot be an alias"),
        ([str(tmp_path), "--name", "a"], "no model package and no run folder"),
        ([str(run), "--name", "a", "--store", "mlruns"], "refuse the file store"),
        ([str(tmp_path / "cels"), "--name", "a"], "does not exist"),
    ):
        assert main(["register", *words]) == 2
        message = capsys.readouterr().err
        assert said in message
        assert "Traceback" not in message
