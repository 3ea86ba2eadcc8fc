"""One MLflow run: what is logged, under which names, and how it goes on after an interruption.

All that is logged is written to the run's folder first (:mod:`medseg.tracking.spool`), which is all that a training
pays for; a background thread brings it to the store (:mod:`medseg.tracking.delivery`), and ``medseg sync`` what that
thread could not. Logging never raises because of the store.
"""

from __future__ import annotations

import getpass
import json
import math
import shutil
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from medseg.errors import MedsegError, TrainingError
from medseg.files import partial_of
from medseg.tracking import machine
from medseg.tracking.case_tables import Tables, table_path
from medseg.tracking.courier import NOTE, RUN, Courier
from medseg.tracking.delivery import Delivery, warn
from medseg.tracking.history import History
from medseg.tracking.names import TAG_LENGTH, TAG_NAME_LENGTH, Names, clean, cut, flat
from medseg.tracking.picture_files import picture_files, picture_key
from medseg.tracking.spool import FILES, FOLDER, Spool
from medseg.tracking.store import Store, Unreachable
from medseg.tracking.versions import code_tags

if TYPE_CHECKING:
    from PIL.Image import Image

Status = Literal["FINISHED", "FAILED", "KILLED"]

EARLIER = "earlier"
"""In a run's folder, the runs that it kept before and that wait for their store."""

_NAME_TAG = "metric."
_TABLES_TAG = "mlflow.loggedArtifacts"
_PICTURES_TAG = "mlflow.loggedImages"


class Run:
    """One run, new or continued. As a context manager it ends as its block does.

    Use :meth:`start`; the constructor takes an open spool.

    Attributes:
        name: the one that its log gave it, the same in every store: what a run that is a part of this one names as
            its ``parent``.
        store: where it is delivered to.
        resumed: whether it goes on where an earlier process left it.
    """

    def __init__(
        self, spool: Spool, courier: Courier, resumed: bool, held: ExitStack, trouble: Exception | None
    ) -> None:
        self.name = str(spool.begin["run"])
        self.store = courier.store
        self.resumed = resumed
        self._spool = spool
        self._courier = courier
        self._held = held
        self._history = History.of(spool)
        self._names = Names(_known_names(self._history.tags))
        self._tables = Tables(spool.folder / FILES)
        self._writable = True
        self._finished = False
        self._delivery = Delivery(courier, trouble)

    @classmethod
    def start(
        cls,
        store: Store,
        experiment: str,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
        folder: Path | None = None,
        parent: str | None = None,
        alike: Collection[str] | None = None,
    ) -> Run:
        """Begins a run, or continues the one that its folder keeps.

        Args:
            store: where it is delivered to.
            experiment: MLflow's experiment, made where there is none; a continued run stays in its own.
            name: the run's name in the table.
            params: the resolved config, nested; logged flat (``training.batch``).
            tags: tags beside those of the code (:func:`medseg.tracking.versions.code_tags`): device, seed,
                ... Of a continued run, params and tags that have changed keep their first value, and the new
                one becomes a tag (``changed.training.batch``): MLflow's params never change.
            folder: the run's own, which keeps all that is logged in ``tracking/``, whatever becomes of the store. None
                for a run that lives as long as this process; the store must answer then.
            parent: the name (:attr:`name`) of the run that this one is a part of, as a fold is of a cross-validation.
            alike: tags that, with all params, say what the run is of: the folder's run is continued where they are the
                same and it was not deleted; else it makes way for a new one, and what no store has of it is kept in
                ``earlier/``, where ``medseg sync`` finds it. None to continue whatever run the folder keeps.

        Raises:
            MedsegError: where the store is none of MLflow's, of another schema, or locked; where the experiment or the
                run was deleted; where another process logs to the same folder; without a folder, where the store does
                not answer.
        """
        with ExitStack() as stack:
            place = Path(stack.enter_context(TemporaryDirectory())) if folder is None else folder
            spool = Spool(place)
            courier = Courier(spool, store)
            given = flat(params), _short(tags or {})
            resumed = spool.exists and (alike is None or _goes_on(spool, store, *given, alike))
            asked = spool.begin["experiment"] if resumed else experiment
            trouble = _trouble(lambda: store.experiment(courier.client, asked))
            if trouble is not None and folder is None:
                raise trouble
            if spool.exists and not resumed:
                _set_aside(spool)
            stack.enter_context(spool.held())  # after the store's word, so that a refused run leaves no folder
            if not resumed:
                about = {
                    "experiment": experiment,
                    "name": name,
                    "user": _user(),
                    "parent": parent,
                    "store": store.shown,
                }
                spool.append("begin", run=uuid.uuid4().hex, **about)
            trouble = trouble or _trouble(courier.place)
            run = cls(spool, courier, resumed, stack.pop_all(), trouble)
        if resumed:
            run._append("status", status="RUNNING")
        run._describe(given[0], {**_origin(), **code_tags(), **given[1]})
        return run

    @property
    def id(self) -> str | None:
        """MLflow's id of the run; None as long as the store has not answered."""
        return self._courier.run_id

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
        last = self._history.steps
        named = {self._name(name): _finite(value) for name, value in values.items()}
        new = {name: value for name, value in named.items() if name not in last or step > last[name]}
        if new:
            last |= dict.fromkeys(new, step)
            self._append("metrics", step=step, values=new)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]], step: int | None = None) -> None:
        """Logs a table of cases; the UI shows it among the artifacts and in its evaluation view.

        All steps of one name are one table, ``tables/<name>.json``, with the step as its first column;
        logging a step again replaces it and what came after it. The last 10,000 rows are kept.

        Args:
            name: the table's name.
            rows: one mapping of column -> value a row; the columns of all rows together make the table's.
            step: the training step; None for a table without steps, which is replaced whole.
        """
        path = table_path(name)
        self._own_file(path, self._tables.grown(path, rows, step))
        shown = json.loads(self._history.tags.get(_TABLES_TAG, "[]"))
        entry = {"path": path, "type": "table"}
        if entry not in shown:
            self._set({_TABLES_TAG: json.dumps([*shown, entry])})

    def results(self, values: Mapping[str, float]) -> None:
        """Logs metrics that a run has once, at its end: at step 0, where MLflow's charts are bars that compare runs.

        A run that goes on, and ends again, logs them at the next step.

        Args:
            values: as of :meth:`log`.
        """
        known = [self._history.steps.get(self._name(name), -1) for name in values]
        self.log(values, max(known, default=-1) + 1)

    def pictured(self, path: str) -> bool:
        """Whether there is a picture of that path."""
        return picture_key(path) in self._history.pictures

    def picture(self, image: NDArray[Any] | Image, path: str, step: int | None = None) -> str | None:
        """Logs a picture; the UI shows those of one path as a slider over the steps, which begins at step 0.

        Args:
            image: (H, W, 3) or (H, W) uint8, or a Pillow image.
            path: what it shows, such as ``overlay/<case>``.
            step: the training step; one that the path has already is left out. None for a picture that a run has once,
                at its end: as in :meth:`results`.

        Returns:
            its place among the artifacts; None where it is left out.
        """
        key, last = picture_key(path), self._history.pictures
        step = last.get(key, -1) + 1 if step is None else step
        if key in last and step <= last[key]:
            return None
        last[key] = step
        files = picture_files(image, key, step)
        for place, content in files.items():
            self._own_file(place, content, picture=key, step=step)
        self._set({_PICTURES_TAG: "True"})
        return next(iter(files))

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Logs a file, or a folder with all it holds, under ``folder`` of the run's artifacts.

        What lies in the run's own folder is delivered as it then is; another file is copied there first.

        Raises:
            MedsegError: where there is no such file.
        """
        source = Path(path)
        if not source.exists():
            raise MedsegError(f"{source} is missing: it cannot be logged as an artifact of the run")
        with _Kept(self):
            place = folder or (source.name if source.is_dir() else "")
            self._append("file", source=self._spool.source_of(source), folder=place)

    def text(self, text: str, path: str) -> None:
        """Logs a text as the artifact ``path``."""
        self._own_file(path, text.encode("utf-8", "replace"))

    def dataset(
        self, name: str, digest: str, source: str, context: str = "training", profile: Mapping[str, Any] | None = None
    ) -> None:
        """Logs the data set, for the UI's column: its name, and the first 16 characters of its digest.

        Args:
            name: the data set's name.
            digest: of its content; whole in the tag ``dataset.digest``.
            source: where it comes from, in words or as an address; no path of this machine is needed.
            context: what it was used for.
            profile: what the UI shows of it, such as the number of cases.
        """
        self._append(
            "dataset",
            name=name[:500],
            digest=digest[:16],
            source=json.dumps({"uri": source}),
            context=context,
            profile=None if profile is None else json.dumps(profile),
        )
        self.tags({"dataset.name": name, "dataset.digest": digest})

    def tags(self, values: Mapping[str, str]) -> None:
        """Sets tags; names are made acceptable to MLflow, long values are cut."""
        self._set(_short(values))

    def description(self, markdown: str) -> None:
        """Sets the text that the UI shows at the top of the run, in Markdown.

        A picture of ``(artifact:PATH)`` is that file among the run's artifacts; a link to ``(page:PATH)`` opens it in
        the UI.
        """
        self.tags({NOTE: markdown})

    def machine(self) -> AbstractContextManager[None]:
        """While the block runs, what the machine is busy with is logged (:mod:`medseg.tracking.machine`)."""
        looks = (step for name, step in self._history.steps.items() if name.startswith(machine.PREFIX))
        return machine.watched(self.log, max(looks, default=-1) + 1)

    def finish(self, status: Status = "FINISHED") -> None:
        """Ends the run and delivers what is left; a second call does nothing."""
        if self._finished:
            return
        self._finished = True
        self._append("status", status=status)
        with self._held:
            self._delivery.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish("FINISHED")
        else:
            if isinstance(error, TrainingError):
                self.tags({"stopped": str(error)})
            self.finish("KILLED" if issubclass(kind, KeyboardInterrupt | SystemExit) else "FAILED")

    def _append(self, kind: str, **content: Any) -> None:
        with _Kept(self):
            self._spool.append(kind, **content)

    def _describe(self, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Logs params and tags; what a continued run has otherwise becomes a tag beside the first value."""
        before = self._history
        fresh = {key: value for key, value in params.items() if key not in before.params}
        changed = _changed({**before.params, **before.tags}, {**params, **tags})
        new = {key: value for key, value in tags.items() if key not in before.tags}
        if fresh:
            self._append("params", values=fresh)
        self.tags({**new, **changed})

    def _set(self, tags: Mapping[str, str]) -> None:
        new = {key: value for key, value in tags.items() if self._history.tags.get(key) != value}
        if new:
            self._history.tags |= new
            self._append("tags", values=new)

    def _name(self, original: str) -> str:
        """The metric's name; one that differs from the original is explained by a tag."""
        known = original in self._names
        name = self._names.of(original)
        if not known and name != original:
            self.tags({f"{_NAME_TAG}{name}": original})
        return name

    def _own_file(self, path: str, content: bytes, **about: Any) -> None:
        """Keeps a file of the spool's own, whole or not at all, and logs it at its place among the artifacts."""
        with _Kept(self):
            place = self._spool.own(path)
            partial_of(place).write_bytes(content)
            partial_of(place).replace(place)
            folder, _, _ = path.rpartition("/")
            self._append("file", source=f"{FOLDER}/{FILES}/{path}", folder=folder, **about)


class _Kept:
    """A block that writes to the run's folder: where that is full or gone, it is said once, and the run goes on."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, OSError):
            return False
        if self._run._writable:
            self._run._writable = False
            where, why = self._run._spool.folder, error.strerror or error
            warn(f"{where} cannot be written ({why}): the run goes on, but is tracked no more")
        return True


def _short(tags: Mapping[str, str]) -> dict[str, str]:
    """Tags as MLflow takes them."""
    return {clean(key, TAG_NAME_LENGTH): cut(str(value), TAG_LENGTH) for key, value in tags.items()}


def _goes_on(
    spool: Spool, store: Store, params: Mapping[str, str], tags: Mapping[str, str], alike: Collection[str]
) -> bool:
    """Whether the run that a folder keeps is of the same, and there to be continued."""
    known, courier = History.of(spool), Courier(spool, store)
    if known.params != params or any(known.tags.get(key) != tags.get(key) for key in alike):
        return False
    if courier.run_id is None:
        return True
    with spool.held():
        try:
            courier.place()
        except Unreachable:
            return True
        except MedsegError:
            return False
    return True


def _set_aside(spool: Spool) -> None:
    """Takes a run out of its folder, in one step; what its store has not got is kept below it."""
    with spool.held():
        begin = spool.begin
        state, size = spool.delivered(begin["store"]), spool.size
        place = spool.run_folder / EARLIER / begin["run"]
        place.mkdir(parents=True, exist_ok=True)
        spool.folder.rename(place / FOLDER)
        if (spool.run_folder / RUN).exists():
            (spool.run_folder / RUN).replace(place / RUN)
    if min(state.values, state.files) >= size:
        shutil.rmtree(place)
        if not any(place.parent.iterdir()):
            place.parent.rmdir()


def _trouble(ask: Callable[[], object]) -> Unreachable | None:
    """Why a store does not answer; None where it does.

    Raises:
        MedsegError: where it answers that it cannot be used.
    """
    try:
        ask()
    except Unreachable as problem:
        return problem
    return None


def _changed(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """The tags ``changed.<key>`` of values that differ from the last ones known."""
    last = {key: before.get(f"changed.{key}", value) for key, value in before.items()}
    return {f"changed.{key}": value for key, value in now.items() if last.get(key, value) != value}


def _known_names(tags: Mapping[str, str]) -> dict[str, str]:
    return {key[len(_NAME_TAG) :]: value for key, value in tags.items() if key.startswith(_NAME_TAG)}


def _finite(value: float) -> float | None:
    """The value; None, which the log has for NaN, where it is not finite."""
    number = float(value)
    return number if math.isfinite(number) else None


def _origin() -> dict[str, str]:
    return {"mlflow.source.name": "medseg", "mlflow.source.type": "LOCAL"}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
