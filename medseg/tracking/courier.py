"""Bringing what a run has logged to a store, from where it was left off, so that nothing is there twice.

Every request can be made again without harm, since each says what it is of: a run carries the name that its log gave it
(the tag ``medseg.run``), a metric's point its time and step, a file its place. So it does not matter where the
last delivery broke off, before the store did what was asked or after.

Values and files go in two lanes: a store whose disk is full of files still takes values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from medseg.errors import MedsegError
from medseg.files import write_json
from medseg.tracking.names import TAG_LENGTH, cut
from medseg.tracking.spool import Delivered, Record, Spool
from medseg.tracking.store import Store, missing, never_takes, reason_of
from medseg.tracking.view import MM, TAG, unit_of, view

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

RUN = "run.json"
"""Where a run's folder says which run of which store it is."""
RUN_TAG = "medseg.run"
PARENT_TAG = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
"""The tag with the description, in Markdown."""

BATCH = 1000
"""Points of one request: as many as MLflow takes."""
PARAMS = 100
"""Params or tags of one request: as many as MLflow takes."""

UNSET = ("null", "[]", "{}", "")
"""Params that say that nothing was given are not delivered: MLflow writes all params above each picture and in every
comparison. The log keeps them, and so does the whole config among the run's artifacts."""

_LINK = re.compile(r"\((artifact|page):([^)]+)\)")


class Courier:
    """Between one run's spool and one store.

    Attributes:
        refused: what the store will never take, and why.
        gone: files that were to be logged and are not there any more.
        anew: whether the store had the run no more, so that all of it goes there once more.
    """

    def __init__(self, spool: Spool, store: Store) -> None:
        self.spool = spool
        self.store = store
        self.refused: list[str] = []
        self.gone: list[str] = []
        self.anew = False
        self.sent = {"values": 0, "files": 0}
        self._client: MlflowClient | None = None
        self._run_id: str | None = None
        self._placed = False

    @property
    def state(self) -> Delivered:
        """How far the store has got."""
        return self.spool.delivered(self.store.shown)

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run; None where the store has none yet."""
        self._run_id = self._run_id or self.state.run_id
        return self._run_id

    @property
    def waiting(self) -> int:
        """Bytes of the log that the store has not got."""
        state, size = self.state, self.spool.size
        return max(size - state.values, size - state.files)

    @property
    def client(self) -> MlflowClient:
        """The store's client.

        Raises:
            Unreachable: where it does not answer.
            MedsegError: where it cannot be used.
        """
        if self._client is None:
            self._client = self.store.client()
        return self._client

    def place(self) -> str:
        """The run's id in the store, where it is made once, and once more where the store has it no more.

        Raises:
            Unreachable: where the store does not answer.
            MedsegError: where the run or its experiment was deleted.
        """
        run_id = self.run_id or self._create()
        if not self._has(run_id):
            self._forget()
            run_id = self._create()
        self._placed = True
        return run_id

    def values(self) -> None:
        """Delivers params, tags, metrics and the run's status.

        Raises:
            Exception: whatever MLflow raises where the store does not take them now.
        """
        self._deliver(self._values)

    def files(self) -> None:
        """Delivers files, of each place the last.

        Raises:
            Exception: whatever MLflow raises where the store does not take them now.
        """
        self._deliver(self._files)

    def _deliver(self, lane: Callable[[str], None]) -> None:
        """Delivers to the run; to a new one where the store turns out to have it no more."""
        run_id = (self.run_id if self._placed else None) or self.place()
        try:
            lane(run_id)
        except Exception as problem:
            if not never_takes(problem) or self._has(run_id):
                raise
            lane(self.place())

    def _values(self, run_id: str) -> None:
        self._join_parent(run_id)
        points: list[Metric] = []
        end = self.state.values
        for record, after in self.spool.records(end):
            new = _points(record) if record["kind"] == "metrics" else []
            if points and (not new or len(points) + len(new) > BATCH):
                self._send_points(run_id, points, end)
                points = []
            points += new
            if not new and (deliver := VALUES.get(record["kind"])):
                self._unless_refused(run_id, record["kind"], lambda: deliver(self, run_id, record))  # noqa: B023
            end = after
        self._send_points(run_id, points, end)

    def _files(self, run_id: str) -> None:
        waiting: dict[tuple[str, str], int] = {}
        start = end = self.state.files
        for record, end in self.spool.records(start):
            if record["kind"] == "file":
                place = record["source"], record["folder"]
                waiting.pop(place, None)
                waiting[place] = end
        for (source, folder), after in waiting.items():
            self._unless_refused(run_id, source, lambda: self._send_file(run_id, source, folder))  # noqa: B023
            self._note(files=after)
        if end != self.state.files:
            self._note(files=end)

    def _has(self, run_id: str) -> bool:
        """Whether the store has a run of that id.

        Raises:
            Unreachable: where the store does not answer.
            MedsegError: where the run is there, but marked as deleted.
        """
        with self.store.explained("does not give the run"):
            try:
                found = self.client.get_run(run_id)
            except Exception as problem:
                if missing(problem):
                    return False
                raise
            if found.info.lifecycle_stage == "active":
                return True
            experiment = self.client.get_experiment(found.info.experiment_id)
        whole = experiment.lifecycle_stage != "active"
        what = f"experiments restore -x {experiment.experiment_id}" if whole else f"runs restore --run-id {run_id}"
        raise MedsegError(
            f"the run {run_id} was deleted from the tracking store {self.store.shown}"
            f"{' with its experiment' if whole else ''}: restore it with mlflow {what}, where MLFLOW_TRACKING_URI "
            f"names that store"
        )

    def _forget(self) -> None:
        """What the store once had counts no more: all of it waits again."""
        self.anew = True
        self._run_id = None
        self._note(**asdict(Delivered()))

    def _create(self) -> str:
        begin = self.spool.begin
        experiment = self.store.experiment(self.client, begin["experiment"])
        with self.store.explained("takes no new run"):
            run_id = self._find(experiment, begin["run"])
            if run_id is None:
                tags = {RUN_TAG: begin["run"], "mlflow.user": begin["user"]}
                made = self.client.create_run(experiment, begin["time"], tags, begin["name"])
                run_id = str(made.info.run_id)
        self._note(run_id=run_id)
        write_json(self.spool.run_folder / RUN, {"store": self.store.shown, "run_id": run_id})
        return run_id

    def _find(self, experiment: str, name: str) -> str | None:
        """A run by the name that its log gave it."""
        found = self.client.search_runs([experiment], f"tags.`{RUN_TAG}` = '{name}'", max_results=1)
        return str(found[0].info.run_id) if found else None

    def _join_parent(self, run_id: str) -> None:
        """Says which run this one is a part of, as soon as the store knows that one."""
        parent = self.spool.begin.get("parent")
        if parent is None or self.state.parent:
            return
        experiment = self.client.get_run(run_id).info.experiment_id
        if (found := self._find(experiment, parent)) is not None:
            self.client.set_tag(run_id, PARENT_TAG, found)
            self._note(parent=True)

    def _send_points(self, run_id: str, points: list[Metric], end: int) -> None:
        for start in range(0, len(points), BATCH):
            some = points[start : start + BATCH]
            self._unless_refused(
                run_id,
                "values",
                lambda: self.client.log_batch(run_id, metrics=some, synchronous=True),  # noqa: B023
            )
        self._unless_refused(run_id, "the table's columns", lambda: self._show(run_id, [p.key for p in points]))
        self.sent["values"] += len(points)
        if end != self.state.values:
            self._note(values=end)

    def _show(self, run_id: str, metrics: Sequence[str]) -> None:
        """Where distances are not in mm: the experiment's table of runs, as it was made, shows the columns that are."""
        unit = unit_of(metrics)
        if unit is None or unit == MM:
            return
        experiment = self.client.get_experiment(self.client.get_run(run_id).info.experiment_id)
        if experiment.tags.get(TAG) == view():
            self.client.set_experiment_tag(experiment.experiment_id, TAG, view(unit))

    def _params(self, run_id: str, record: Record) -> None:
        from mlflow.entities import Param

        params = [Param(key, value) for key, value in record["values"].items() if value not in UNSET]
        for start in range(0, len(params), PARAMS):
            self.client.log_batch(run_id, params=params[start : start + PARAMS], synchronous=True)
        self.sent["values"] += len(params)

    def _tags(self, run_id: str, record: Record) -> None:
        from mlflow.entities import RunTag

        values = dict(record["values"])
        if NOTE in values:
            experiment = self.client.get_run(run_id).info.experiment_id
            values[NOTE] = cut(_linked(values[NOTE], experiment, run_id), TAG_LENGTH)
        tags = [RunTag(key, value) for key, value in values.items()]
        for start in range(0, len(tags), PARAMS):
            self.client.log_batch(run_id, tags=tags[start : start + PARAMS], synchronous=True)
        self.sent["values"] += len(tags)

    def _dataset(self, run_id: str, record: Record) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        described = Dataset(record["name"], record["digest"], "local", record["source"], profile=record.get("profile"))
        self.client.log_inputs(run_id, [DatasetInput(described, [InputTag("mlflow.data.context", record["context"])])])

    def _status(self, run_id: str, record: Record) -> None:
        if record["status"] == "RUNNING":
            self.client.update_run(run_id, status="RUNNING")
        else:
            self.client.set_terminated(run_id, record["status"], record["time"])

    def _send_file(self, run_id: str, source: str, folder: str) -> None:
        path = self.spool.run_folder / source
        if path.is_dir():
            self.client.log_artifacts(run_id, str(path), folder)
        elif path.exists():
            self.client.log_artifact(run_id, str(path), folder or None)
        else:
            self.gone.append(source)
            return
        self.sent["files"] += 1

    def _unless_refused(self, run_id: str, what: str, run: Callable[[], None]) -> None:
        """Does it; what the store will never take is left out and kept in mind, anything else is raised.

        A run that was deleted or is not there takes nothing, and all of it later, when it is back.
        """
        try:
            run()
        except Exception as problem:
            if not never_takes(problem) or not self._has(run_id):
                raise
            self.refused.append(f"{Path(what).name}: {reason_of(problem)[:200]}")

    def _note(self, **changes: Any) -> None:
        self.spool.note(self.store.shown, **changes)


VALUES: Mapping[str, Callable[[Courier, str, Record], None]] = {
    "params": Courier._params,
    "tags": Courier._tags,
    "dataset": Courier._dataset,
    "status": Courier._status,
}
"""How a record that is no point and no file is delivered, by its kind."""


def _points(record: Record) -> list[Metric]:
    from mlflow.entities import Metric

    time, step = record["time"], record["step"]
    return [Metric(name, math.nan if value is None else value, time, step) for name, value in record["values"].items()]


def _linked(text: str, experiment: str, run_id: str) -> str:
    """A Markdown text with ``(artifact:PATH)`` and ``(page:PATH)`` as the UI's addresses of a file, and of its page."""

    def address(match: re.Match[str]) -> str:
        path = quote(match[2])
        if match[1] == "page":
            return f"(#/experiments/{experiment}/runs/{run_id}/artifacts/{path})"
        return f"(get-artifact?path={path}&run_uuid={run_id})"

    return _LINK.sub(address, text)
