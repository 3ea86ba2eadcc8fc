"""Whatever a store does to a training: the weights are the same, and all that was logged gets there once."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter

import pytest
from mlflow_proxy import Proxy, say

from medseg.cli.app import main
from medseg.tracking import delivery
from medseg.tracking.store import Store
from medseg.tracking.ui import HOST, _wait_until_ready, free_port, server_environment

EXPERIMENT = "outages"
ONCE = {"throughput"}
"""What differs from training to training."""


class Server:
    """A real MLflow server on a SQLite file, which keeps the files too."""

    def __init__(self, folder):
        self.folder = folder
        self.port = free_port(5600)
        self.start()

    def start(self):
        store = Store.resolve(f"sqlite:///{self.folder}/server.db")
        options = ["--host", HOST, "--port", str(self.port), "--workers", "1", "--uvicorn-opts", "--log-level error"]
        files = ["--artifacts-destination", str(self.folder / "files")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *options, *files],
            env=server_environment(store),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        _wait_until_ready(self.process, self.port)

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    @property
    def client(self):
        return Store.resolve(f"sqlite:///{self.folder}/server.db").client()

    def content(self, run_id):
        """All that a run holds, without what is another one in every training."""
        run = self.client.get_run(run_id)
        points = {
            key: Counter((point.step, None if key in ONCE or key.startswith("seconds/") else point.value)
                         for point in self.client.get_metric_history(run_id, key))
            for key in run.data.metrics
            if not key.startswith("system/")
        }  # fmt: skip
        root = self.folder / "files" / run.info.experiment_id / run_id / "artifacts"
        files = Counter(
            re.sub(r"timestamp\+.*?(?=[+]compressed|[.]png)", "", path.relative_to(root).as_posix())
            for path in root.rglob("*")
            if path.is_file()
        )
        own = {"medseg.run", "mlflow.runName", "device"}
        tags = {key: value for key, value in run.data.tags.items() if key not in own}
        tags["mlflow.note.content"] = ""
        params = {key: value for key, value in run.data.params.items() if key != "tracking.uri"}
        inputs = [used.dataset.name for used in run.inputs.dataset_inputs]
        return run.info.status, params, tags, points, files, inputs


@pytest.fixture(scope="module")
def server(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    made = Store.resolve(json.loads((trained / "run.json").read_text())["store"]).database
    shutil.copy(made, folder / "server.db")  # making one takes MLflow seconds
    running = Server(folder)
    yield running
    running.kill()


@pytest.fixture
def empty_server(trained, tmp_path):
    """Another server, which knows nothing of what the first one was given."""
    folder = tmp_path / "another server"
    folder.mkdir()
    made = Store.resolve(json.loads((trained / "run.json").read_text())["store"]).database
    shutil.copy(made, folder / "server.db")
    running = Server(folder)
    yield running
    running.kill()


@pytest.fixture
def proxy(server):
    made = Proxy(server.port)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(delivery, "FLUSH_SECONDS", 0.02)
    monkeypatch.setattr(delivery, "RETRY_SECONDS", 0.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def train(config, keys, address, folder, *others):
    keys = [key for key in keys if not key.startswith("tracking.uri")]
    words = ["train", str(config), *keys, f"tracking.uri={address}", f"tracking.experiment={EXPERIMENT}", *others]
    assert main([*words, "-o", str(folder)]) == 0


def run_of(folder):
    return json.loads((folder / "run.json").read_text())["run_id"]


@pytest.fixture(scope="module")
def expected(server, config, keys, tmp_path_factory):
    """What a training that nothing disturbs leaves."""
    through = Proxy(server.port)
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(config, keys, through.address, folder)
    through.close()
    return server.content(run_of(folder)), (folder / "model" / "weights.safetensors").read_bytes()


def warnings_of(text):
    return [line for line in text.splitlines() if line.startswith("warning: ")]


def check_kept_and_delivered(server, expected, folder, capsys):
    """The weights are the same, it was said once, and two syncs bring what is missing, once."""
    content, weights = expected
    assert (folder / "model" / "weights.safetensors").read_bytes() == weights
    said = warnings_of(capsys.readouterr().err)
    assert len(said) == 1 and f"medseg sync {folder}" in said[0], said
    assert main(["sync", str(folder.parent)]) == 0
    assert server.content(run_of(folder)) == content
    capsys.readouterr()
    assert main(["sync", str(folder)]) == 0
    assert "nothing left to deliver" in capsys.readouterr().out
    assert server.content(run_of(folder)) == content
    runs = server.client.search_runs([server.client.get_experiment_by_name(EXPERIMENT).experiment_id])
    names = Counter(run.data.tags["medseg.run"] for run in runs)
    assert set(names.values()) == {1}


@pytest.mark.parametrize("first", [0, 9, None])
def test_a_store_lost_at_any_request_costs_nothing(server, proxy, expected, config, keys, tmp_path, capsys, first):
    """Before the training, while it goes on, at its end; the server does the last request, and nobody hears of it."""
    proxy.behaviour = proxy.die if first == 0 else proxy.lose_answers_from(first)
    train(config, keys, proxy.address, tmp_path / "run")
    assert (tmp_path / "run" / "run.json").exists() == (first in (9, None))
    proxy.behaviour = proxy.forward
    check_kept_and_delivered(server, expected, tmp_path / "run", capsys)


def test_a_full_disk_takes_values_and_gets_the_files_later(server, proxy, expected, config, keys, tmp_path, capsys):
    proxy.behaviour = proxy.no_files
    train(config, keys, proxy.address, tmp_path / "run")
    status, _, _, points, files, _ = server.content(run_of(tmp_path / "run"))
    assert (status, points, not files) == ("FINISHED", expected[0][3], True)
    proxy.behaviour = proxy.forward
    check_kept_and_delivered(server, expected, tmp_path / "run", capsys)


def test_wrong_credentials_cost_nothing(server, proxy, expected, config, keys, tmp_path, capsys):
    proxy.behaviour = proxy.forbid(401)
    train(config, keys, proxy.address, tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()
    proxy.behaviour = proxy.forward
    check_kept_and_delivered(server, expected, tmp_path / "run", capsys)


PASSWORD = "p:a@s/s%wörd"  # pragma: allowlist secret
WRITTEN = "p%3Aa%40s%2Fs%25w%C3%B6rd"


@pytest.fixture
def closed(server, proxy, monkeypatch):
    """The server's address, for whoever knows the password alone; it asks for it at every request."""
    known = {f"Basic {base64.b64encode(f'me:{PASSWORD}'.encode(code)).decode()}" for code in ("utf-8", "latin-1")}

    def ask(request, number):
        if request.headers["Authorization"] in known:
            return proxy.forward(request, number)
        proxy.drain(request)
        return say(request, 401, "text/html", b"<html>who are you?</html>")

    proxy.behaviour = ask
    return proxy.address


def test_the_password_of_the_address_opens_the_server_and_is_written_nowhere(
    server, closed, expected, config, keys, tmp_path, capfd, monkeypatch
):
    folder = tmp_path / "run"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", closed.replace("//", f"//me:{WRITTEN}@"))
    train(config, keys, closed, folder)
    assert warnings_of(capfd.readouterr().err) == []
    assert server.content(run_of(folder)) == expected[0]
    assert main(["sync", str(folder)]) == 0
    assert main(["ui"]) == 0
    out, err = capfd.readouterr()
    assert "nothing left to deliver" in out and f"{closed}/#/" in out
    written = [path.read_bytes() for root in (folder, server.folder) for path in root.rglob("*") if path.is_file()]
    assert len(written) > 10
    for content in (*written, out.encode(), err.encode()):
        assert PASSWORD.encode() not in content and WRITTEN.encode() not in content


def test_a_wrong_password_is_told_as_such(closed, expected, config, keys, tmp_path, capfd, monkeypatch, server):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", closed.replace("//", "//me:grsgrs@"))
    folder = tmp_path / "run"
    train(config, keys, closed, folder)
    assert main(["sync", str(folder)]) == 3
    assert main(["ui"]) == 2
    out, err = capfd.readouterr()
    told = [line for line in err.splitlines() if "asks for a user and a password that it knows (401)" in line]
    assert [line.partition(":")[0] for line in told] == ["warning", str(folder), "error"]
    assert all(closed in line for line in told) and "does not answer" not in err and "grsgrs" not in out + err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", closed.replace("//", f"//me:{WRITTEN}@"))
    assert main(["sync", str(folder)]) == 0
    assert server.content(run_of(folder)) == expected[0]


def test_a_server_that_is_made_anew_gets_its_runs_back(
    server, proxy, expected, config, keys, tmp_path, capsys, empty_server
):
    train(config, keys, proxy.address, tmp_path / "run")
    proxy.port = empty_server.port
    assert main(["sync", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "delivered anew" in said.err and run_of(tmp_path / "run") in said.out
    assert empty_server.content(run_of(tmp_path / "run")) == expected[0]
    assert main(["sync", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "nothing left to deliver" in said.out and said.err == ""
    experiment = empty_server.client.get_experiment_by_name(EXPERIMENT).experiment_id
    (run,) = empty_server.client.search_runs([experiment])
    empty_server.client.delete_run(run.info.run_id)
    assert main(["sync", str(tmp_path)]) == 3
    said = capsys.readouterr()
    assert f"mlflow runs restore --run-id {run.info.run_id}" in said.err and said.out == ""


def test_a_server_that_is_made_anew_meanwhile_gets_all_of_a_training(
    proxy, expected, config, keys, tmp_path, capsys, empty_server
):
    def change(request, number):
        if number == 12:
            proxy.port = empty_server.port
        proxy.forward(request, number)

    proxy.behaviour = change
    train(config, keys, proxy.address, tmp_path / "run")
    assert warnings_of(capsys.readouterr().err) == [] and proxy.port == empty_server.port
    assert empty_server.content(run_of(tmp_path / "run")) == expected[0]


def test_nobody_waits_for_slow_answers(server, proxy, expected, config, keys, tmp_path, capsys, monkeypatch):
    """Answers come only once the training is over."""
    over = threading.Event()
    logged = []

    def hold(request, number):
        if number > 5:
            over.wait(60)
        proxy.forward(request, number)

    proxy.behaviour = hold
    from medseg.tracking.run import Run

    finish = Run.finish

    def ended(run, status="FINISHED"):
        logged.append(proxy.requests)
        over.set()
        finish(run, status)

    monkeypatch.setattr(Run, "finish", ended)
    train(config, keys, proxy.address, tmp_path / "run")
    assert 6 <= logged[0] <= 8, "one request a lane was waiting while the training went on"
    assert warnings_of(capsys.readouterr().err) == []
    assert server.content(run_of(tmp_path / "run")) == expected[0]


def test_a_server_killed_in_the_middle_is_made_up_for(server, proxy, expected, config, keys, tmp_path, capsys):
    def kill(request, number):
        if number == 8:
            server.kill()
        if server.process.poll() is not None:
            return Proxy.die(request, number)
        return proxy.forward(request, number)

    proxy.behaviour = kill
    train(config, keys, proxy.address, tmp_path / "run")
    assert server.process.poll() is not None
    folder = tmp_path / "run"
    assert main(["sync", str(folder)]) == 3
    assert "1 of 1 runs wait" in capsys.readouterr().err.splitlines()[-1]
    server.start()
    proxy.behaviour = proxy.forward
    assert main(["sync", str(folder)]) == 0
    assert server.content(run_of(folder)) == expected[0]
