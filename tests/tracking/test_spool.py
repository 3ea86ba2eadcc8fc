"""What a run keeps on disk: whole lines in order, whatever a kill does; and what medseg sync finds of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import medseg
from medseg.errors import MedsegError
from medseg.tracking.courier import PARENT_TAG, RUN_TAG
from medseg.tracking.history import History
from medseg.tracking.spool import Busy, Spool, spools_under
from medseg.tracking.store import Store
from medseg.tracking.sync import sync


def begun(folder: Path, name: str = "r", parent: str | None = None, store: str = "s") -> Spool:
    spool = Spool(folder)
    spool.append("begin", run=name, experiment="e", name=name, user="u", parent=parent, store=store)
    return spool


@given(cut=st.integers(0, 400), later=st.integers(1, 3))
def test_a_log_that_a_kill_has_torn_goes_on_with_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, cut: int, later: int
) -> None:
    spool = begun(tmp_path_factory.mktemp("run"))
    for step in range(3):
        spool.append("metrics", step=step, values={"é": 1.0})
    spool.close()
    content = spool.log.read_bytes()
    kept = min(cut, len(content))
    spool.log.write_bytes(content[:kept])
    whole = content[:kept].count(b"\n")
    assert len(list(spool.records())) == whole
    torn = Spool(spool.run_folder)
    for step in range(later):
        torn.append("metrics", step=10 + step, values={"é": 1.0})
    assert [record.get("step") for record, _ in torn.records()][whole:] == [10 + step for step in range(later)]
    ends = [end for _, end in torn.records()]
    assert ends[-1] == torn.size and list(torn.records(ends[0])) == list(torn.records())[1:]


def test_a_damaged_line_is_left_out(tmp_path: Path) -> None:
    spool = begun(tmp_path)
    with spool.log.open("ab") as file:
        file.write(b'{"kind": "metr\xff\n')
    spool.append("status", status="FINISHED")
    assert [record["kind"] for record, _ in spool.records()] == ["begin", "status"]
    assert History.of(spool).status == "FINISHED"


def test_a_file_of_the_folder_is_named_and_another_one_copied(tmp_path: Path) -> None:
    spool = begun(tmp_path / "run")
    (tmp_path / "run" / "in.txt").write_text("in")
    (tmp_path / "out.txt").write_text("out")
    assert spool.source_of(tmp_path / "run" / "in.txt") == "in.txt"
    assert (tmp_path / "run" / spool.source_of(tmp_path / "out.txt")).read_text() == "out"


def test_wholes_come_before_their_parts(tmp_path: Path) -> None:
    begun(tmp_path / "a" / "fold0", "part", parent="whole")
    begun(tmp_path / "z", "whole")
    assert [spool.begin["run"] for spool in spools_under(tmp_path)] == ["whole", "part"]


def test_a_run_that_goes_on_elsewhere_is_left_alone(tmp_path: Path, store: Store) -> None:
    begun(tmp_path / "run", store=store.uri)
    code = (
        "import sys; from pathlib import Path; from medseg.tracking.spool import Spool\n"
        "with Spool(Path(sys.argv[1])).held(): print('held', flush=True); sys.stdin.read()"
    )
    root = str(Path(medseg.__file__).parents[1])
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": root},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert other.stdout and other.stdin
    other.stdout.readline()
    with pytest.raises(Busy, match="another medseg process"), Spool(tmp_path / "run").held():
        pass
    (found,) = sync([tmp_path])
    assert "another medseg process" in found.why and found.run_id is None
    other.stdin.close()
    other.wait()
    (found,) = sync([tmp_path])
    assert found.why == "" and store.client().get_run(found.run_id).info.status == "KILLED"


def test_sync_brings_a_run_to_another_store_whole(tmp_path: Path, store: Store) -> None:
    spool = begun(tmp_path / "run", store="http://127.0.0.1:9")
    spool.append("metrics", step=1, values={"loss": 1.0})
    spool.append("status", status="FINISHED")
    (found,) = sync([tmp_path], store.uri)
    (again,) = sync([tmp_path / "run"], store.uri)
    assert (found.values, found.why) == (1, "") and (again.values, again.files, again.run_id) == (0, 0, found.run_id)
    assert [point.value for point in store.client().get_metric_history(found.run_id, "loss")] == [1.0]
    (silent,) = sync([tmp_path])
    assert "does not answer" in silent.why


def runs_named(store: Store, *names: str) -> dict[str, list[str]]:
    """The ids of the store's runs of some names that their logs gave them."""
    client = store.client()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(experiments, run_view_type=3)
    tags = [(run.data.tags.get(RUN_TAG), run.info.run_id) for run in found]
    return {name: [run_id for tag, run_id in tags if tag == name] for name in names}


def test_a_store_that_has_the_runs_no_more_gets_all_of_them_once(tmp_path: Path, store: Store) -> None:
    for spool in (begun(tmp_path / "all", "w"), begun(tmp_path / "all" / "fold0", "p", parent="w")):
        spool.append("metrics", step=1, values={"loss": 1.0})
        spool.own("a.txt").write_text("text")
        spool.append("file", source="tracking/files/a.txt", folder="")
        spool.append("status", status="FINISHED")
    before = [found.run_id for found in sync([tmp_path], store.uri)]
    for run_id in before:
        store.client()._tracking_client.store._hard_delete_run(run_id)
    anew = list(sync([tmp_path], store.uri))
    assert [(one.values, one.files, one.why) for one in anew] == [(1, 1, "")] * 2
    assert all("delivered anew" in note for one in anew for note in one.notes) and len(anew[0].notes) == 1
    whole, part = (one.run_id for one in anew)
    assert runs_named(store, "w", "p") == {"w": [whole], "p": [part]} and not {whole, part} & set(before)
    client = store.client()
    assert client.get_run(part).data.tags[PARENT_TAG] == whole
    assert [file.path for file in client.list_artifacts(part)] == ["a.txt"]
    assert len(client.get_metric_history(part, "loss")) == 1
    kept = json.loads((tmp_path / "all" / "run.json").read_text())
    assert kept == {"store": store.shown, "run_id": whole}
    again = list(sync([tmp_path], store.uri))
    assert [(one.run_id, one.values, one.files, one.notes) for one in again] == [(whole, 0, 0, ()), (part, 0, 0, ())]


@pytest.mark.parametrize("with_experiment", [False, True])
def test_a_run_that_was_deleted_waits_until_it_is_restored(tmp_path: Path, store: Store, with_experiment: bool) -> None:
    spool = Spool(tmp_path / "run")
    name = f"deleted {with_experiment}"
    spool.append("begin", run=name, experiment=name, name="n", user="u", parent=None, store=store.uri)
    spool.append("status", status="FINISHED")
    (first,) = sync([tmp_path])
    client = store.client()
    experiment = client.get_run(first.run_id).info.experiment_id
    client.delete_experiment(experiment) if with_experiment else client.delete_run(first.run_id)
    (found,) = sync([tmp_path])
    back = f"experiments restore -x {experiment}" if with_experiment else f"runs restore --run-id {first.run_id}"
    assert f"the run {first.run_id} was deleted" in found.why and f"mlflow {back}," in found.why
    client.restore_experiment(experiment) if with_experiment else client.restore_run(first.run_id)
    (found,) = sync([tmp_path])
    assert (found.run_id, found.why) == (first.run_id, "") and runs_named(store, name) == {name: [first.run_id]}


def test_a_part_that_came_first_is_joined_with_its_whole(tmp_path: Path, store: Store) -> None:
    begun(tmp_path / "all", "later", store=store.uri)
    begun(tmp_path / "all" / "fold0", "earlier", parent="later", store=store.uri)
    (part,) = sync([tmp_path / "all" / "fold0"])
    assert PARENT_TAG not in store.client().get_run(part.run_id).data.tags
    whole, _ = sync([tmp_path])
    assert store.client().get_run(part.run_id).data.tags[PARENT_TAG] == whole.run_id


def test_a_folder_without_runs_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(MedsegError, match="keeps no run"):
        list(sync([tmp_path]))
    with pytest.raises(MedsegError, match="is no folder"):
        list(sync([tmp_path / "none"]))
