"""Which MLflow store the runs go to, and how it is opened.

Nothing of MLflow is imported before :func:`medseg.quiet.quiet_mlflow` has switched its telemetry off: MLflow reads the
switch when it is imported.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit
from urllib.request import Request, urlopen

from medseg.errors import MedsegError
from medseg.quiet import quiet_mlflow
from medseg.tracking.view import KIND, TAG, view

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

DEFAULT = "sqlite:///mlflow.db"
"""The store where neither the config nor MLFLOW_TRACKING_URI names one, in the current folder."""

HEALTHY = b"OK"
"""What an MLflow server says at /health."""
NOTHING_THERE = (404, 405, 501)

ANSWER_SECONDS = 5.0
"""How long an MLflow server may take to answer before it counts as unreachable."""

SERVERS = ("http", "https")
DATABASES = ("postgresql", "mysql", "mssql")
_DRIVERS_WORDS = re.compile(r"^\(\w+(?:\.\w+)*Error\) (.+)$", re.MULTILINE)
"""What a database's driver said, amid SQLAlchemy's words: «(sqlite3.OperationalError) database is locked»."""

_SCHEMAS = re.compile(r"found version \w+, but expected \w+")
"""What MLflow says of a schema."""

DENIED = {401: "asks for a user and a password that it knows", 403: "forbids that to this user"}
"""What a server says (HTTP) that does not let somebody in, or not everywhere."""

TRY_LATER = (*DENIED, 408, 429)
"""Client errors (HTTP) that can pass without anything being wrong with what was sent."""


_SECRETS = ("password", "passwd", "pwd", "sslpassword", "odbc_connect")
"""Options of a database's address that are or hold a password."""

_USER = re.compile(r"^([^:/?#]+://)[^:/]*(?::[^@]*)?@(?:[^/?]*@)?")
"""An address up to its host, with the user and password: to SQLAlchemy a password holds any character but ``@``."""

_USER_IN_TEXT = re.compile(r"(?<=\w://)[^\s/]\S*@")


class Unreachable(MedsegError):
    """A store that does not answer, or lets nobody in, just now: what is logged can wait for it."""


@dataclass(frozen=True)
class Store:
    """An MLflow tracking store.

    Attributes:
        uri: where it is, the same from every folder.
        database: the file of a SQLite store, absolute; None for a server or another database.
    """

    uri: str
    database: Path | None = None

    @classmethod
    def resolve(cls, configured: str | None = None, folder: Path | None = None) -> Store:
        """The configured store, else MLFLOW_TRACKING_URI's, else ``sqlite:///mlflow.db``.

        Where the configured one is that of MLFLOW_TRACKING_URI but for a password, the latter is meant.

        Args:
            configured: the config's ``tracking.uri``.
            folder: what a relative SQLite path is relative to; None takes the current folder.

        Raises:
            MedsegError: where MLflow cannot keep runs in a store of that kind, or the address cannot be read.
        """
        environment = os.environ.get("MLFLOW_TRACKING_URI")
        uri = configured or environment or DEFAULT
        if environment and uri.rstrip("/") == _without_password(environment).rstrip("/"):
            uri = environment
        shown = _without_password(uri)
        scheme = uri.partition(":")[0].partition("+")[0].lower() if "://" in uri else ""
        if scheme == "sqlite":
            return cls._sqlite(uri, folder or Path.cwd())
        if scheme in (*SERVERS, *DATABASES):
            _check_readable(uri)
            return cls(uri.rstrip("/") if scheme in SERVERS else uri)
        if not scheme or scheme == "file":
            raise MedsegError(
                f"the tracking store {shown!r} is a folder, and MLflow 3.13 and later refuse the file store: "
                f"write tracking.uri=sqlite:///mlflow.db, another sqlite:///FILE.db, or a server's http:// address"
            )
        raise MedsegError(
            f"the tracking store {shown!r} is of no kind that medseg knows: give sqlite:///FILE.db, http://, "
            f"https:// or a postgresql, mysql or mssql address"
        )

    @classmethod
    def _sqlite(cls, uri: str, folder: Path) -> Store:
        match = re.fullmatch(r"[^:]+:///([^?]+)(\?.*)?", uri)
        if match is None or match[1] == ":memory:":
            raise MedsegError(f"the tracking store {uri!r} names no file: write sqlite:///FILE.db")
        return cls._of_file(Path(os.path.abspath(folder / unquote(match[1]))), match[2] or "")

    @classmethod
    def _of_file(cls, database: Path, options: str = "") -> Store:
        # To SQLAlchemy every other character stands for itself.
        escaped = str(database).replace("%", "%25").replace("?", "%3F")
        return cls(f"sqlite:///{escaped}{options}", database)

    @property
    def remote(self) -> bool:
        """Whether a server holds it."""
        return self.uri.partition(":")[0] in SERVERS

    @property
    def shown(self) -> str:
        """The address as it may be printed: without a password."""
        return _without_password(self.uri)

    @property
    def headers(self) -> dict[str, str]:
        """The user and password of a server's address, for questions to :attr:`shown`; MLflow finds them by itself."""
        parts = urlsplit(self.uri)
        if not self.remote or parts.password is None:
            return {}
        pair = f"{unquote(parts.username or '')}:{unquote(parts.password)}"
        return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}

    @property
    def artifacts(self) -> Path | None:
        """The folder of the artifacts: beside a SQLite file, in the current folder for another database.

        None where a server keeps them.
        """
        if self.remote:
            return None
        return (self.database.parent if self.database else Path.cwd()) / "mlartifacts"

    def check(self) -> None:
        """Finds out, within seconds and without importing MLflow, whether the store can be opened.

        Raises:
            MedsegError: where it cannot.
        """
        if self.remote:
            self._check_server()
        elif self.database:
            self._check_file(self.database)

    def client(self) -> MlflowClient:
        """A client of the store, which is made where there is none yet.

        Raises:
            MedsegError: where the store cannot be opened: no answer, no MLflow store, another schema.
        """
        self.check()
        quiet_mlflow()
        from mlflow import MlflowClient

        with self.explained("cannot be opened"):
            if self.database and self.artifacts and not self._has_tables(self.database):
                from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

                # The experiment "Default" is made with the tables; its artifacts belong beside the file too.
                SqlAlchemyStore(self.uri, self.artifacts.as_uri())
            return MlflowClient(tracking_uri=self.uri)

    def experiment(self, client: MlflowClient, name: str) -> str:
        """The id of an experiment, which is made where there is none of that name.

        Raises:
            MedsegError: for one that was deleted, or whose artifacts only a server could keep.
        """
        with self.explained("does not give its experiments"):
            found = client.get_experiment_by_name(name) or self._create(client, name)
            if TAG not in found.tags and found.lifecycle_stage == "active":
                client.set_experiment_tag(found.experiment_id, TAG, view())
        if found.lifecycle_stage != "active":
            raise MedsegError(
                f"the experiment {name!r} was deleted from the tracking store {self.shown}: choose another "
                f"tracking.experiment, or restore it (mlflow experiments restore -x {found.experiment_id})"
            )
        if not self.remote and urlsplit(found.artifact_location).scheme == "mlflow-artifacts":
            raise MedsegError(
                f"the experiment {name!r} in {self.shown} keeps its artifacts with an MLflow server: give "
                f"that server's http:// address as tracking.uri, or choose another tracking.experiment"
            )
        return str(found.experiment_id)

    def _create(self, client: MlflowClient, name: str) -> Experiment:
        from mlflow.exceptions import MlflowException

        folder = re.sub(r"[^\w.-]+", "_", name).strip("._") or "experiment"
        location = (self.artifacts / folder).as_uri() if self.artifacts else None
        try:
            made = client.create_experiment(name, artifact_location=location, tags={TAG: view(), **KIND})
            return client.get_experiment(made)
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another process was faster
            if found is None:
                raise
            return found

    @contextlib.contextmanager
    def explained(self, what: str) -> Iterator[None]:
        """Turns whatever MLflow raises within into one sentence about this store."""
        try:
            yield
        except MedsegError:
            raise
        except Exception as problem:
            if "schema" in str(problem) or "revision" in str(problem):
                raise self._other_schema(problem) from problem
            kind = MedsegError if self.database or never_takes(problem) else Unreachable
            raise kind(f"the tracking store {self.shown} {what}: {reason_of(problem)}") from problem

    def _other_schema(self, problem: Exception) -> MedsegError:
        import mlflow

        versions = _SCHEMAS.search(str(problem))
        said = versions[0] if versions else reason_of(problem)[:100]
        return MedsegError(
            f"the tracking store {self.shown} has another schema than MLflow {mlflow.__version__} takes ({said}): "
            f"upgrade MLflow where a newer one made it; else back it up and run mlflow db upgrade, or "
            f"name another store as tracking.uri"
        )

    def _check_server(self) -> None:
        question = Request(f"{self.shown}/health")
        for name, value in self.headers.items():
            question.add_unredirected_header(name, value)  # for this server alone
        try:
            with urlopen(question, timeout=ANSWER_SECONDS) as answer:
                said = answer.read(100).strip()
        except HTTPError as problem:
            if problem.code in NOTHING_THERE:
                raise self._foreign(f"{problem.code} {problem.reason}") from None
            if problem.code in DENIED and self.headers and problem.url == question.full_url:
                raise Unreachable(f"the tracking server {self.shown} lets nobody in: {reason_of(problem)}") from problem
            return  # it answers; what it thinks of us comes with the first question
        except (OSError, ValueError, HTTPException) as problem:
            reason = getattr(problem, "reason", None) or problem
            raise Unreachable(
                f"the tracking server {self.shown} does not answer ({reason}): start it, correct tracking.uri "
                f"or MLFLOW_TRACKING_URI, or track in a file with tracking.uri=sqlite:///mlflow.db"
            ) from problem
        if said != HEALTHY:
            raise self._foreign(f"no {HEALTHY.decode()}")

    def _foreign(self, said: str) -> MedsegError:
        return MedsegError(
            f"{self.shown} answers, but is no MLflow server ({said} at /health): correct tracking.uri or "
            f"MLFLOW_TRACKING_URI, or track in a file with tracking.uri=sqlite:///mlflow.db"
        )

    def _check_file(self, database: Path) -> None:
        try:
            database.parent.mkdir(parents=True, exist_ok=True)
            writable = os.access(database if database.exists() else database.parent, os.W_OK)
            names = self._tables(database)
            if names and writable:
                self._check_lock(database)
        except (OSError, sqlite3.Error) as problem:
            raise MedsegError(f"the tracking store {database} cannot be opened: {problem}") from None
        if not writable:
            raise MedsegError(
                f"the tracking store {database} cannot be written: mind the permissions, or set tracking.uri"
            )
        if names and "alembic_version" not in names:
            raise MedsegError(
                f"{database} is a database, but not MLflow's: name another file with tracking.uri=sqlite:///FILE.db"
            )

    @staticmethod
    def _check_lock(database: Path) -> None:
        """Waits until the file can be written.

        Raises:
            sqlite3.OperationalError: where somebody else holds it for longer than ``ANSWER_SECONDS``.
        """
        with contextlib.closing(sqlite3.connect(database, timeout=ANSWER_SECONDS)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()

    def _has_tables(self, database: Path) -> bool:
        return bool(self._tables(database))

    @staticmethod
    def _tables(database: Path) -> set[str]:
        if not database.exists():
            return set()
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)) as connection:
            return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")}


def never_takes(problem: Exception) -> bool:
    """Whether what was sent is at fault, so that sending it again is of no use."""
    from mlflow.exceptions import MlflowException

    if isinstance(problem, MlflowException):
        status = problem.get_http_status_code()
        return 400 <= status < 500 and status not in TRY_LATER
    if isinstance(problem, OSError):
        return isinstance(problem, FileNotFoundError)
    return isinstance(problem, TypeError | ValueError)


def missing(problem: Exception) -> bool:
    """Whether MLflow says that there is no such thing."""
    return getattr(problem, "error_code", "") == "RESOURCE_DOES_NOT_EXIST"


def denied(problem: BaseException) -> int | None:
    """The HTTP status by which a server does not let somebody in; None where it says something else."""
    ask = getattr(problem, "get_http_status_code", None)  # MLflow's
    status = ask() if ask else getattr(getattr(problem, "response", problem), "status_code", None)
    status = status or getattr(problem, "code", None)  # urllib's
    return status if status in DENIED else None


def _without_password(uri: str) -> str:
    if uri.partition(":")[0].partition("+")[0].lower() == "sqlite":
        return uri
    address, _, options = _USER.sub(r"\1", uri).partition("?")
    kept = [option for option in options.split("&") if option.partition("=")[0].lower() not in _SECRETS]
    return "?".join(filter(None, (address, "&".join(kept))))


def _check_readable(uri: str) -> None:
    """Refuses an address whose host is not plain, and does not repeat it: what is taken for the host may be secret.

    Raises:
        MedsegError: where a user or password holds characters that end them.
    """
    shown = _without_password(uri)
    host = urlsplit(uri).netloc.rpartition("@")[2]
    other = uri.partition(":")[0].lower() in SERVERS and host != urlsplit(shown).netloc
    if other or "@" in shown.partition("?")[0]:
        raise MedsegError(
            "the address of the tracking store cannot be read: in its user and password write % as %25, @ as %40, "
            ": as %3A, / as %2F, ? as %3F and # as %23"
        )


def reason_of(problem: BaseException) -> str:
    """Why something failed, in one line and without a password."""
    if status := denied(problem):
        return (
            f"it {DENIED[status]} ({status}), set MLFLOW_TRACKING_URI=http://USER:PASSWORD@HOST, or "
            f"MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    text = _USER_IN_TEXT.sub("", str(problem).strip()) or type(problem).__name__
    said = _DRIVERS_WORDS.search(text)
    return said[1] if said else text.splitlines()[0]
