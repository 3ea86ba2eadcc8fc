"""What a run logs reaches its store once and in order, whatever the store does; and the run never waits for it."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medseg.quiet import quiet_mlflow
from medseg.tracking import delivery as module
from medseg.tracking.courier import PARENT_TAG, RUN_TAG, Courier
from medseg.tracking.delivery import Delivery
from medseg.tracking.run import Run
from medseg.tracking.spool import Spool
from medseg.tracking.store import Store, Unreachable, missing
from medseg.tracking.sync import sync


@pytest.fixture(autouse=True, scope="module")
def _impatient() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FLUSH_SECONDS", 0.001)
        patch.setattr(module, "RETRY_SECONDS", 0.0)
        yield


class Unsteady:
    """A store's client that does what it is asked to, and yet fails as a script says: before it did, or after."""

    def __init__(self, script: list[str]) -> None:
        self.script = iter(script)
        self.runs: list[dict[str, str]] = []
        self.points: Counter[Any] = Counter()
        self.params: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.files: set[Any] = set()

    def asked(self) -> str:
        return next(self.script, "well")

    def did(self, word: str) -> None:
        if word == "after":
            raise ConnectionError("no answer")

    def search_runs(self, experiments: Any, text: str, max_results: int) -> list[Any]:
        known = [i for i, tags in enumerate(self.runs) if f"'{tags[RUN_TAG]}'" in text]
        return [self.get_run(str(i)) for i in known]

    def create_run(self, experiment: str, time: int, tags: dict[str, str], name: str) -> Any:
        self.before(word := self.asked())
        self.runs.append(tags)
        self.did(word)
        return self.get_run(str(len(self.runs) - 1))

    def get_run(self, run_id: str) -> Any:
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id, experiment_id="1", lifecycle_stage="active"))

    def log_batch(
        self, run_id: str, metrics: Any = (), params: Any = (), tags: Any = (), synchronous: bool = True
    ) -> None:
        self.before(word := self.asked())
        self.points |= Counter({(m.key, m.step, m.timestamp, m.value): 1 for m in metrics})  # as MLflow's primary key
        self.params |= {p.key: p.value for p in params}
        self.tags |= {t.key: t.value for t in tags}
        self.did(word)

    def log_artifact(self, run_id: str, path: str, folder: str | None) -> None:
        self.before(word := self.asked())
        self.files.add((Path(path).name, folder, Path(path).read_text()))
        self.did(word)

    def set_terminated(self, run_id: str, status: str, time: int) -> None:
        self.before(word := self.asked())
        self.tags["status"] = status
        self.did(word)

    @staticmethod
    def before(word: str) -> None:
        if word == "before":
            raise ConnectionError("no way through")


class Forgetful(Unsteady):
    """A store's client whose server is made anew, empty, before some requests about a run."""

    def __init__(self, losses: list[bool]) -> None:
        super().__init__([])
        self.losses = iter(losses)

    def known(self, run_id: str) -> None:
        if next(self.losses, False):
            for tags in self.runs:
                tags[RUN_TAG] = ""
            for kept in (self.points, self.params, self.tags, self.files):
                kept.clear()
        self.get_run(run_id)

    def get_run(self, run_id: str) -> Any:
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

        if self.runs[int(run_id)][RUN_TAG] == "":
            raise MlflowException(f"no run {run_id}", RESOURCE_DOES_NOT_EXIST)
        return super().get_run(run_id)

    def log_batch(self, run_id: str, *some: Any, **others: Any) -> None:
        self.known(run_id)
        super().log_batch(run_id, *some, **others)

    def log_artifact(self, run_id: str, path: str, folder: str | None) -> None:
        self.known(run_id)
        super().log_artifact(run_id, path, folder)

    def set_terminated(self, run_id: str, status: str, time: int) -> None:
        self.known(run_id)
        super().set_terminated(run_id, status, time)


class Place(Store):
    """A store that is never asked whether it is there."""

    def check(self) -> None:
        return

    def experiment(self, client: Any, name: str) -> str:
        return "1"


def place(tmp_path: Path, client: Any) -> tuple[Spool, Courier]:
    spool = Spool(tmp_path)
    if not spool.exists:
        spool.append("begin", run="r1", experiment="e", name="n", user="u", parent=None, store="s")
    courier = Courier(spool, Place("http://nowhere"))
    courier._client = client
    return spool, courier


@given(script=st.lists(st.sampled_from(["well", "before", "after"]), max_size=25), points=st.integers(0, 7))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_all_of_it_arrives_once_whenever_the_line_breaks(
    tmp_path_factory: pytest.TempPathFactory, script: list[str], points: int
) -> None:
    client = Unsteady(script)
    spool, courier = place(tmp_path_factory.mktemp("run"), client)
    spool.append("params", values={"a": "1"})
    for step in range(points):
        spool.append("metrics", step=step, values={"loss": float(step), "dice": None})
    spool.own("a.txt").write_text("text")
    spool.append("file", source="tracking/files/a.txt", folder="notes")
    spool.append("status", status="FINISHED")
    while courier.waiting:
        for lane in (courier.values, courier.files):
            try:
                lane()
            except (ConnectionError, Unreachable):
                courier = place(spool.run_folder, client)[1]  # as after a restart
    assert len(client.runs) == 1
    assert client.params == {"a": "1"} and client.tags["status"] == "FINISHED"
    assert client.files == {("a.txt", "notes", "text")}
    assert sorted(step for (key, step, _, _) in client.points if key == "loss") == list(range(points))
    assert courier.refused == [] and courier.gone == []
    calls = (client.points.copy(), dict(client.tags))
    courier.values()
    courier.files()
    assert (client.points, client.tags) == calls and courier.sent["values"] <= 2 * points + 1


@given(losses=st.lists(st.booleans(), max_size=8), points=st.integers(0, 3))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_store_that_is_made_anew_gets_all_of_it_once_more(
    tmp_path_factory: pytest.TempPathFactory, losses: list[bool], points: int
) -> None:
    quiet_mlflow()
    client = Forgetful(losses)
    spool, courier = place(tmp_path_factory.mktemp("run"), client)
    spool.append("params", values={"a": "1"})
    for step in range(points):
        spool.append("metrics", step=step, values={"loss": float(step)})
    spool.own("a.txt").write_text("text")
    spool.append("file", source="tracking/files/a.txt", folder="notes")
    spool.append("status", status="FINISHED")
    for attempt in range(1 + len(losses)):
        for lane in (courier.values, courier.files):
            try:
                lane()
            except Exception as problem:
                assert missing(problem) and sum(losses) > attempt, "lost more than once in this attempt"
    assert not courier.waiting
    assert [tags[RUN_TAG] for tags in client.runs if tags[RUN_TAG]] == ["r1"]
    assert client.params == {"a": "1"} and client.tags == {"status": "FINISHED"}
    assert client.files == {("a.txt", "notes", "text")}
    assert sorted(step for (_, step, _, _) in client.points) == list(range(points))
    assert courier.refused == []


def test_of_a_file_that_changes_the_last_is_delivered(tmp_path: Path) -> None:
    client = Unsteady([])
    spool, courier = place(tmp_path, client)
    for text in ("first", "last"):
        spool.own("a.txt").write_text(text)
        spool.append("file", source="tracking/files/a.txt", folder="")
    spool.append("file", source="never-there", folder="")
    courier.files()
    assert client.files == {("a.txt", None, "last")} and courier.gone == ["never-there"]


def test_it_is_said_once_and_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client = Unsteady(["before"] * 5)
    spool, courier = place(tmp_path, client)
    spool.append("params", values={"a": "1"})
    delivery = Delivery(courier)
    while courier.waiting:
        delivery._thread.join(0.001)
    assert delivery.close() and delivery.answering
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("warning: ")
    assert "(no way through)" in said[0] and f"medseg sync {tmp_path}" in said[0]


def test_nobody_waits_for_a_store_that_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    never = threading.Event()
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.01)
    client = Unsteady([])
    monkeypatch.setattr(client, "log_batch", lambda *_, **__: never.wait(30))
    spool, courier = place(tmp_path, client)
    delivery = Delivery(courier)
    spool.append("params", values={"a": "1"})
    assert not delivery.close()
    never.set()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "medseg sync" in said[0]


def test_what_the_store_refuses_is_left_out_and_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quiet_mlflow()
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    class Strict(Unsteady):
        def log_batch(self, run_id: str, metrics: Any = (), **others: Any) -> None:
            if metrics:
                raise MlflowException("no such name", INVALID_PARAMETER_VALUE)
            super().log_batch(run_id, **others)

    client = Strict([])
    spool, courier = place(tmp_path, client)
    spool.append("metrics", step=1, values={"loss": 1.0})
    spool.append("params", values={"a": "1"})
    assert Delivery(courier).close()
    assert client.params == {"a": "1"}
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "refuses values: no such name" in said[0]


@pytest.mark.parametrize(("code", "said"), [("UNAUTHENTICATED", "(401)"), ("PERMISSION_DENIED", "(403)")])
def test_who_is_not_let_in_is_told_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    quiet_mlflow()
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import ErrorCode

    def deny(*_: Any, **__: Any) -> None:
        raise MlflowException("go away", ErrorCode.Value(code))

    client = Unsteady([])
    monkeypatch.setattr(client, "log_batch", deny)
    spool, courier = place(tmp_path, client)
    spool.append("params", values={"a": "1"})
    assert not Delivery(courier).close()
    (line,) = capsys.readouterr().err.splitlines()
    assert "takes nothing (it " in line and said in line and "MLFLOW_TRACKING_PASSWORD" in line
    assert "does not answer" not in line and courier.refused == []


def test_a_run_that_is_deleted_while_it_goes_on_loses_nothing(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Run.start(store, "deleted", "a run", {}, folder=tmp_path / "run") as run:
        while run._courier.waiting:
            run._delivery._thread.join(0.001)
        store.client().delete_run(run.id)
        run.log({"loss": 1.0}, 1)
        run.text("words", "a.txt")
    (line,) = capsys.readouterr().err.splitlines()
    assert "takes nothing (" in line and f"was deleted from the tracking store {store.shown}: restore it" in line
    (found,) = sync([tmp_path])
    assert f"mlflow runs restore --run-id {run.id}" in found.why and (found.values, found.files) == (0, 0)
    store.client().restore_run(run.id)
    (found,) = sync([tmp_path])
    assert (found.run_id, found.values, found.files, found.why, found.notes) == (run.id, 1, 1, "", ())
    assert [point.value for point in store.client().get_metric_history(run.id, "loss")] == [1.0]


def test_a_part_finds_its_whole_as_soon_as_the_store_knows_it(store: Store, tmp_path: Path) -> None:
    whole = Run.start(store, "folds", "all", {}, folder=tmp_path / "all")
    part = Run.start(store, "folds", "fold 0", {}, folder=tmp_path / "all" / "fold0", parent=whole.name)
    early = Run.start(store, "folds", "fold 1", {}, folder=tmp_path / "fold1", parent="not there yet")
    for run in (part, early, whole):
        run.finish()
    runs = {run.id: store.client().get_run(run.id).data.tags for run in (whole, part, early)}
    assert runs[part.id][PARENT_TAG] == whole.id
    assert PARENT_TAG not in runs[early.id] and PARENT_TAG not in runs[whole.id]


def test_a_folder_that_is_full_costs_one_line(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Run.start(store, "full", "a run", {}, folder=tmp_path) as run:

        def full(*_: Any, **__: Any) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(run._spool, "append", full)
            for step in range(5):
                run.log({"loss": 1.0}, step)
                run.text("words", "a.txt")
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(said) == 1 and "No space left on device" in said[0]
