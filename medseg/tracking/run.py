"""One MLflow run: what is logged, under which names, and how it goes on after an interruption.

Metrics, pictures and tables are handed to a background thread (:mod:`medseg.tracking.delivery`); logging
never raises because of the store, so a store that is lost in the middle costs no training. The run folder's
own ``metrics.csv`` keeps every value in any case.
"""

from __future__ import annotations

import getpass
import json
import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from medseg.errors import MedsegError
from medseg.tracking.delivery import Delivery
from medseg.tracking.names import TAG_LENGTH, TAG_NAME_LENGTH, Names, clean, cut, flat
from medseg.tracking.store import Store
from medseg.tracking.versions import code_tags

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, RunTag
    from PIL.Image import Image

Status = Literal["FINISHED", "FAILED", "KILLED"]

TABLE_ROWS = 10_000
"""Rows that a table keeps; the oldest leave."""

BEFORE_ALL = -(2**63)
"""The step before every step."""

_NAME_TAG = "metric."
_TABLES_TAG = "mlflow.loggedArtifacts"
_PICTURE = re.compile(r"images/(?P<key>.+)\+step\+(?P<step>-?\d+)\+timestamp\+")


class Run:
    """One MLflow run, new or continued. As a context manager it ends as its block does.

    Use :meth:`start`; the constructor takes an open run.

    Attributes:
        id: MLflow's run id, with which the run is continued.
        experiment_id: MLflow's id of its experiment.
        resumed: whether it goes on where an earlier process left it.
    """

    def __init__(self, store: Store, client: MlflowClient, run_id: str, resumed: bool) -> None:
        self.store = store
        self.id = run_id
        self.resumed = resumed
        self._client = client
        found = client.get_run(run_id)
        self.experiment_id = str(found.info.experiment_id)
        self._before = dict(found.data.params), dict(found.data.tags)
        self._names = Names(_known_names(found.data.tags))
        self._steps: dict[str, int] = {}
        self._picture_steps: dict[str, int] | None = None
        self._tables: dict[str, list[dict[str, Any]]] = {}
        self._shown = json.loads(found.data.tags.get(_TABLES_TAG, "[]"))
        self._delivery = Delivery(self._send, store.shown)
        self._finished = False

    @classmethod
    def start(
        cls,
        store: Store,
        experiment: str,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
        run_id: str | None = None,
    ) -> Run:
        """Begins a run, or continues the one of ``run_id``.

        Args:
            store: where it is kept.
            experiment: MLflow's experiment, made where there is none; a continued run stays in its own.
            name: the run's name in the table.
            params: the resolved config, nested; logged flat (``training.batch``).
            tags: tags beside those of the code (:func:`medseg.tracking.versions.code_tags`): device, seed,
                ... Of a continued run, params and tags that have changed keep their first value, and the new
                one becomes a tag (``changed.training.batch``): MLflow's params never change.
            run_id: the run to continue.

        Raises:
            MedsegError: where the store cannot be opened, or the run is not in it.
        """
        client = store.client()
        tags = {**_origin(), **code_tags(), **(tags or {})}
        if run_id is None:
            experiment_id = store.experiment(client, experiment)
            with store.explained("takes no new run"):
                run_id = client.create_run(experiment_id, run_name=name).info.run_id
            run = cls(store, client, run_id, resumed=False)
        else:
            run = cls._continued(store, client, run_id)
        with store.explained("takes no params"):
            run._describe(flat(params), tags)
        return run

    @classmethod
    def _continued(cls, store: Store, client: MlflowClient, run_id: str) -> Run:
        from mlflow.exceptions import MlflowException

        try:
            stage = client.get_run(run_id).info.lifecycle_stage
        except MlflowException as problem:
            raise MedsegError(
                f"the run {run_id} is not in the tracking store {store.shown} ({problem.message}): name the "
                f"store that it began in as tracking.uri or MLFLOW_TRACKING_URI"
            ) from None
        if stage != "active":
            raise MedsegError(
                f"the run {run_id} was deleted from the tracking store {store.shown}: restore it in the UI, "
                f"or begin a new run"
            )
        with store.explained("does not let the run go on"):
            client.update_run(run_id, status="RUNNING")
            return cls(store, client, run_id, resumed=True)

    @property
    def answering(self) -> bool:
        """Whether the store answered when it was last asked."""
        return self._delivery.answering

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Logs metrics of one step; cheap, and never raises because of the store.

        A step that a metric has already, or that lies before its last one, is left out: so a continued run
        doubles nothing. NaN is kept; an infinite value becomes NaN, since it would flatten the chart.

        Args:
            values: metric name -> value; names are made acceptable to MLflow, distinct ones stay distinct.
            step: the training step.
        """
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._delivery.post([Metric(self._name(name), _finite(value), now, step) for name, value in values.items()])

    def table(self, name: str, rows: Sequence[Mapping[str, Any]], step: int | None = None) -> None:
        """Logs a table of cases; the UI shows it among the artifacts and in its evaluation view.

        All steps of one name are one table, ``tables/<name>.json``, with the step as its first column;
        logging a step again replaces it and what came after it. The last ``TABLE_ROWS`` rows are kept.

        Args:
            name: the table's name.
            rows: one mapping of column -> value a row; the columns of all rows together make the table's.
            step: the training step; None for a table without steps, which is replaced whole.
        """
        path = f"tables/{_artifact_name(name)}.json"
        head = {} if step is None else {"step": step}
        copies = [{**head, **row} for row in rows]
        self._delivery.submit(f"the table {name}", lambda: self._write_table(path, copies, step))

    def picture(self, image: NDArray[Any] | Image, path: str, step: int) -> None:
        """Logs a picture of one step; the UI shows those of one path as a slider over the steps.

        Args:
            image: (H, W, 3) or (H, W) uint8, or a Pillow image.
            path: what it shows, such as ``overlay/<case>``.
            step: the training step; one that the path has already is left out.
        """
        from PIL import Image as Pillow

        copy = Pillow.fromarray(np.array(image)) if isinstance(image, np.ndarray) else image.copy()
        key = re.sub(r"[^a-zA-Z0-9_\-./ ]", "_", clean(path))
        self._delivery.submit(f"the picture {key}", lambda: self._write_picture(copy, key, step))

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Logs a file, or a folder with all it holds, under ``folder`` of the run's artifacts.

        Returns when it is delivered; at once while the store does not answer (it is delivered later, as it
        then is).

        Raises:
            MedsegError: where there is no such file.
        """
        source = Path(path)
        if not source.exists():
            raise MedsegError(f"{source} is missing: it cannot be logged as an artifact of the run")

        def write() -> None:
            if source.is_dir():
                self._client.log_artifacts(self.id, str(source), folder or source.name)
            else:
                self._client.log_artifact(self.id, str(source), folder)

        self._delivery.submit(f"the file {source.name}", write, wait=True)

    def text(self, text: str, path: str) -> None:
        """Logs a text as the artifact ``path``."""
        self._delivery.submit(f"the text {path}", lambda: self._client.log_text(self.id, text, path))

    def dataset(self, name: str, digest: str, source: str, context: str = "training") -> None:
        """Logs the data set, for the UI's column: its name, and the first 16 characters of its digest.

        Args:
            name: the data set's name.
            digest: of its content; whole in the tag ``dataset.digest``.
            source: where it comes from, in words or as an address; no path of this machine is needed.
            context: what it was used for.
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        described = Dataset(name[:500], digest[:16], "local", json.dumps({"uri": source}))
        used = DatasetInput(described, [InputTag("mlflow.data.context", context)])
        self._delivery.submit("the data set", lambda: self._client.log_inputs(self.id, [used]))
        self.tags({"dataset.name": name, "dataset.digest": digest})

    def tags(self, values: Mapping[str, str]) -> None:
        """Sets tags; names are made acceptable to MLflow, long values are cut."""
        tags = _tags(values)
        self._delivery.submit("tags", lambda: self._client.log_batch(self.id, tags=tags, synchronous=True))

    def description(self, markdown: str) -> None:
        """Sets the text that the UI shows at the top of the run, in Markdown."""
        self.tags({"mlflow.note.content": markdown})

    def finish(self, status: Status = "FINISHED") -> None:
        """Delivers what is left and ends the run; a second call does nothing."""
        if self._finished:
            return
        self._finished = True
        self._delivery.submit("the run's end", lambda: self._client.set_terminated(self.id, status))
        self._delivery.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish("FINISHED")
        else:
            self.finish("KILLED" if issubclass(kind, KeyboardInterrupt | SystemExit) else "FAILED")

    def _describe(self, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Logs params and tags; what a continued run has otherwise becomes a tag beside the first value."""
        from mlflow.entities import Param

        params_before, tags_before = self._before
        fresh = [Param(key, value) for key, value in params.items() if key not in params_before]
        for start in range(0, len(fresh), 100):
            self._client.log_batch(self.id, params=fresh[start : start + 100], synchronous=True)
        new = {key: value for key, value in tags.items() if key not in tags_before}
        changed = _changed({**params_before, **tags_before}, {**params, **tags})
        self._client.log_batch(self.id, tags=_tags({**new, **changed}), synchronous=True)

    def _name(self, original: str) -> str:
        """The metric's name; one that differs from the original is explained by a tag."""
        known = original in self._names
        name = self._names.of(original)
        if not known and name != original:
            self.tags({f"{_NAME_TAG}{name}": original})
        return name

    def _send(self, points: list[Metric]) -> None:
        """Delivers the points of new steps."""
        last: dict[str, int] = {}
        new = []
        for point in points:
            if point.step > last.get(point.key, self._last_step(point.key)):
                last[point.key] = point.step
                new.append(point)
        if new:
            self._client.log_batch(self.id, metrics=new, synchronous=True)
        self._steps.update(last)

    def _last_step(self, key: str) -> int:
        if key not in self._steps:
            history = self._client.get_metric_history(self.id, key) if self.resumed else []
            self._steps[key] = max((point.step for point in history), default=BEFORE_ALL)
        return self._steps[key]

    def _write_picture(self, image: Image, key: str, step: int) -> None:
        if self._picture_steps is None:
            self._picture_steps = self._logged_pictures() if self.resumed else {}
        if step <= self._picture_steps.get(key, BEFORE_ALL):
            return
        self._client.log_image(self.id, image, key=key, step=step, synchronous=True)
        self._picture_steps[key] = step

    def _logged_pictures(self) -> dict[str, int]:
        steps: dict[str, int] = {}
        for file in self._client.list_artifacts(self.id, "images"):
            if match := _PICTURE.match(file.path):
                key = match["key"].replace("~", "/")
                steps[key] = max(int(match["step"]), steps.get(key, BEFORE_ALL))
        return steps

    def _write_table(self, path: str, rows: list[dict[str, Any]], step: int | None) -> None:
        if path not in self._tables:
            self._tables[path] = self._logged_table(path) if self.resumed else []
        earlier = [row for row in self._tables[path] if step is not None and row.get("step", step) < step]
        rows = (earlier + rows)[-TABLE_ROWS:]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        data = [[_cell(row.get(column)) for column in columns] for row in rows]
        self._client.log_text(self.id, json.dumps({"columns": columns, "data": data}), path)
        self._tables[path] = rows
        if (entry := {"path": path, "type": "table"}) not in self._shown:
            self._shown.append(entry)
            self._client.set_tag(self.id, _TABLES_TAG, json.dumps(self._shown))

    def _logged_table(self, path: str) -> list[dict[str, Any]]:
        if path not in {file.path for file in self._client.list_artifacts(self.id, "tables")}:
            return []
        with TemporaryDirectory() as folder:
            content = json.loads(Path(self._client.download_artifacts(self.id, path, folder)).read_text("utf-8"))
        return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]


def _tags(values: Mapping[str, str]) -> list[RunTag]:
    from mlflow.entities import RunTag

    return [RunTag(clean(key, TAG_NAME_LENGTH), cut(str(value), TAG_LENGTH)) for key, value in values.items()]


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """The tags ``changed.<key>`` of values that differ from the last ones known."""
    last = {key: before.get(f"changed.{key}", value) for key, value in before.items()}
    return {f"changed.{key}": value for key, value in now.items() if last.get(key, value) != value}


def _known_names(tags: Mapping[str, str]) -> dict[str, str]:
    return {key[len(_NAME_TAG) :]: value for key, value in tags.items() if key.startswith(_NAME_TAG)}


def _artifact_name(name: str) -> str:
    return re.sub(r"[^\w.\- ]", "_", clean(name))


def _finite(value: float) -> float:
    number = float(value)
    return number if math.isfinite(number) else math.nan


def _cell(value: Any) -> Any:
    """A JSON value of a table's cell: null where there is no finite number."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def _origin() -> dict[str, str]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return {"mlflow.user": user, "mlflow.source.name": "medseg", "mlflow.source.type": "LOCAL"}
