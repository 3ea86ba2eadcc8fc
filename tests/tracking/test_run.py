"""One MLflow run: what is in the store afterwards, also after an interruption, a change and an outage."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.tracking import Run, Store
from medseg.tracking.view import TAG

CONFIG = {"training": {"batch": 4, "max_steps": 100}, "augmentation": [{"name": "flip"}]}


def start(store: Store, folder: Path | None = None, **changes: Any) -> Run:
    return Run.start(store, "phantom", "a run", {**CONFIG, **changes}, {"seed": "0"}, folder)


def history(store: Store, run: Run, key: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in store.client().get_metric_history(run.id, key)]


def files(store: Store, run: Run, folder: str) -> list[str]:
    return [file.path for file in store.client().list_artifacts(run.id, folder)]


def table(store: Store, run: Run, name: str) -> list[dict[str, Any]]:
    content = json.loads(Path(store.client().download_artifacts(run.id, f"tables/{name}.json")).read_text())
    return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


def test_a_run_holds_all_that_was_logged(store: Store, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("{}")
    with start(store) as run:
        for step in range(0, 50, 10):
            run.log({"train/loss": 1 / (step + 1), "lr": 1e-3}, step)
        run.table("validation", [{"case": "c0", "dice": np.float32(0.5)}, {"case": "c1", "dice": math.nan}], 40)
        run.picture(np.zeros((8, 8, 3), np.uint8), "overlay/c0", 40)
        run.artifact(tmp_path / "model")
        run.artifact(tmp_path / "model" / "model.json", "config")
        run.text("hello", "notes/hello.txt")
        run.dataset("cells2d", "0123456789abcdef" * 4, "phantom cells2d")
        run.description("# Dice 0.9")
        run.tags({"device": "cpu"})
    found = store.client().get_run(run.id)
    assert found.info.status == "FINISHED" and found.info.run_name == "a run"
    assert found.data.params == {"training.batch": "4", "training.max_steps": "100", "augmentation.0.name": "flip"}
    assert history(store, run, "train/loss") == [(s, 1 / (s + 1)) for s in range(0, 50, 10)]
    assert {"seed": "0", "device": "cpu", "mlflow.note.content": "# Dice 0.9"}.items() <= found.data.tags.items()
    assert {"medseg.version", "torch.version", "mlflow.user"} <= found.data.tags.keys()
    assert files(store, run, "model") == ["model/model.json"]
    assert files(store, run, "config") == ["config/model.json"]
    assert files(store, run, "notes") == ["notes/hello.txt"]
    assert table(store, run, "validation") == [
        {"step": 40, "case": "c0", "dice": 0.5},
        {"step": 40, "case": "c1", "dice": None},
    ]
    (used,) = found.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("cells2d", "0123456789abcdef")
    assert found.data.tags["dataset.digest"] == "0123456789abcdef" * 4


@pytest.mark.parametrize("unit", ["mm", "nm", "voxels"])
def test_the_table_of_runs_shows_the_distances_that_there_are(store: Store, unit: str) -> None:
    with Run.start(store, f"lengths in {unit}", "a run", {}, {}, None) as run:
        run.results({"best/dice": 0.5, f"best/hd95_{unit}": 3.0})
    client = store.client()
    experiment = client.get_experiment(client.get_run(run.id).info.experiment_id)
    columns = json.loads(experiment.tags[TAG])["selectedColumns"]
    assert [name for name in columns if "hd95" in name] == [f"metrics.`{of}/hd95_{unit}`" for of in ("best", "test")]


def test_mlflow_reads_table_and_picture_as_its_own(store: Store) -> None:
    import pandas

    with start(store) as run:
        run.table("validation", [{"case": "c0", "dice": 0.5}], 1)
        run.picture(np.zeros((8, 8), np.uint8), "overlay/c0", 1)
    client = store.client()
    frame = pandas.read_json(client.download_artifacts(run.id, "tables/validation.json"), orient="split")
    assert frame.to_dict("records") == [{"step": 1, "case": "c0", "dice": 0.5}]
    tags = client.get_run(run.id).data.tags
    assert json.loads(tags["mlflow.loggedArtifacts"]) == [{"path": "tables/validation.json", "type": "table"}]
    assert tags["mlflow.loggedImages"] == "True"
    names = files(store, run, "images")
    assert len(names) == 2 and all(name.startswith("images/overlay~c0+step+1+timestamp+") for name in names)


def test_a_continued_run_is_the_same_and_doubles_no_step(store: Store, tmp_path: Path) -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    with start(store, tmp_path) as run:
        run.log({"early": 0.0}, 5)
        for step in range(0, 100, 10):
            run.log({"train/loss": float(step)}, step)
        for step in (40, 80):
            run.picture(picture, "overlay/c0", step)
            run.table("validation", [{"case": "c0", "dice": step / 100}], step)
    with start(store, tmp_path) as later:
        assert later.id == run.id and later.resumed
        later._courier.values()
        assert store.client().get_run(run.id).info.status == "RUNNING"
        for step in range(60, 130, 10):
            later.log({"train/loss": -1.0, "late": 1.0}, step)
        for step in (80, 120):
            later.picture(picture, "overlay/c0", step)
            later.table("validation", [{"case": "c0", "dice": -1.0}], step)
    expected = [(s, float(s)) for s in range(0, 100, 10)] + [(s, -1.0) for s in range(100, 130, 10)]
    assert history(store, run, "train/loss") == expected
    assert history(store, run, "early") == [(5, 0.0)]
    assert len(history(store, run, "late")) == 7
    pictures = [name for name in files(store, run, "images") if name.endswith(".png")]
    assert sorted(int(name.split("+step+")[1].split("+")[0]) for name in pictures) == [40, 80, 120]
    assert [(row["step"], row["dice"]) for row in table(store, run, "validation")] == [
        (40, 0.4),
        (80, -1.0),
        (120, -1.0),
    ]
    assert store.client().get_run(run.id).info.status == "FINISHED"


def test_what_a_run_has_at_its_end_is_at_step_0_where_charts_are_bars(store: Store, tmp_path: Path) -> None:
    for value in (0.5, 0.75):  # ends, goes on, ends again
        with start(store, tmp_path) as run:
            run.results({"best/dice": value, "best/a+b": value})
            run.picture(np.zeros((8, 8, 3), np.uint8), "cases/worst")
            assert run.pictured("cases/worst") and not run.pictured("cases/best")
    assert history(store, run, "best/dice") == history(store, run, "best/a_b") == [(0, 0.5), (1, 0.75)]
    pictures = [name for name in files(store, run, "images") if name.endswith(".png")]
    assert sorted(int(name.split("+step+")[1].split("+")[0]) for name in pictures) == [0, 1]


def test_what_was_not_given_is_no_param_and_becomes_a_tag_when_it_is(store: Store, tmp_path: Path) -> None:
    nothing = {"steps": [], "rates": {}, "patience": None, "note": ""}
    run = start(store, tmp_path, early=nothing, zero=0, off=False)
    run.finish()
    start(store, tmp_path, early={**nothing, "patience": 3}).finish()
    found = store.client().get_run(run.id).data
    assert {"zero": "0", "off": "false"}.items() <= found.params.items()
    assert not [key for key in found.params if key.startswith("early")]
    assert {key: value for key, value in found.tags.items() if key.startswith("changed.")} == {
        "changed.early.patience": "3"
    }


def test_changed_values_become_tags_beside_the_first(store: Store, tmp_path: Path) -> None:
    run = start(store, tmp_path)
    run.finish()
    start(store, tmp_path, training={"batch": 8, "max_steps": 100}, extra=1).finish()
    found = store.client().get_run(run.id).data
    assert found.params["training.batch"] == "4" and found.params["extra"] == "1"
    changed = {key: value for key, value in found.tags.items() if key.startswith("changed.")}
    assert changed == {"changed.training.batch": "8"}
    start(store, tmp_path).finish()
    assert store.client().get_run(run.id).data.tags["changed.training.batch"] == "4"


def test_odd_labels_keep_their_series_when_continued(store: Store, tmp_path: Path) -> None:
    with start(store, tmp_path) as run:
        run.log({"val/dice/a+b": 0.1, "val/dice/a*b": 0.2}, 1)
    with start(store, tmp_path) as later:
        later.log({"val/dice/a*b": 0.4, "val/dice/a+b": 0.3}, 2)
    assert history(store, run, "val/dice/a_b") == [(1, 0.1), (2, 0.3)]
    tags = store.client().get_run(run.id).data.tags
    (other,) = [key for key, value in tags.items() if key.startswith("metric.") and value == "val/dice/a*b"]
    assert history(store, run, other.removeprefix("metric.")) == [(1, 0.2), (2, 0.4)]


def test_values_that_are_not_finite_stay_visible_and_flatten_no_chart(store: Store) -> None:
    with start(store) as run:
        for step, value in enumerate((math.nan, math.inf, -math.inf, 1.0)):
            run.log({"val/loss": value}, step)
    steps, values = zip(*history(store, run, "val/loss"), strict=True)
    assert steps == (0, 1, 2, 3)
    assert [math.isnan(value) for value in values] == [True, True, True, False]


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")]
)
def test_a_run_ends_as_its_block_does(store: Store, error: type[BaseException], status: str) -> None:
    with pytest.raises(error), start(store) as run:
        run.log({"train/loss": 1.0}, 1)
        raise error
    assert store.client().get_run(run.id).info.status == status
    assert history(store, run, "train/loss") == [(1, 1.0)]
    run.finish()


def test_from_another_folder_the_artifacts_still_lie_beside_the_store(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with start(store) as run:
        run.text("hello", "notes/hello.txt")
    assert store.artifacts
    assert (store.artifacts / "phantom" / run.id / "artifacts" / "notes" / "hello.txt").read_text() == "hello"
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_deleted_is_one_sentence(store: Store, tmp_path: Path) -> None:
    run = start(store, tmp_path)
    run.finish()
    store.client().delete_run(run.id)
    with pytest.raises(MedsegError, match="was deleted"):
        start(store, tmp_path)


def test_a_file_that_is_missing_cannot_be_logged(store: Store, tmp_path: Path) -> None:
    with start(store) as run, pytest.raises(MedsegError, match="is missing"):
        run.artifact(tmp_path / "nothing")


LOGGING = """
import sys
import numpy as np
from medseg.tracking import Run, Store
with Run.start(Store.resolve(sys.argv[1]), "phantom", "guarded", {"a": 1}) as run:
    run.log({"train/loss": 1.0}, 1)
    run.table("validation", [{"case": "c0"}], 1)
    run.picture(np.zeros((8, 8, 3), np.uint8), "overlay/c0", 1)
    run.artifact(sys.argv[2], "config")
    run.dataset("cells2d", "abc", "phantom")
    run.description("text")
"""


def test_nothing_leaves_this_machine(store: Store, guarded: tuple[dict[str, str], Path], tmp_path: Path) -> None:
    environment, attempts = guarded
    (tmp_path / "file.txt").write_text("x")
    command = [sys.executable, "-c", LOGGING, store.uri, str(tmp_path / "file.txt")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""
    assert attempts.read_text() == ""


def test_the_guard_sees_what_leaves_this_machine(guarded: tuple[dict[str, str], Path]) -> None:
    environment, attempts = guarded
    code = "import requests; requests.get('http://example.invalid', timeout=1)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 1
    assert "getaddrinfo 'example.invalid'" in attempts.read_text()
