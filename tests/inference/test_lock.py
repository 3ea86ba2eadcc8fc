import subprocess
import sys

import pytest

from medseg.errors import OutputError
from medseg.inference.lock import held, shared

HOLDER = """
import sys
from pathlib import Path
from medseg.inference import lock

with getattr(lock, sys.argv[1])(Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def output(tmp_path):
    return tmp_path / "a.tif"


@pytest.fixture
def holder(output):
    """Another process that holds a lock, until it is killed."""
    running = []

    def start(kind):
        words = [sys.executable, "-c", HOLDER, kind, str(output)]
        process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def refused(output):
    with pytest.raises(OutputError, match=r"a\.tif is being written by another medseg process"):
        held(output).__enter__()


def test_a_second_start_is_refused_as_long_as_the_first_lives(output, holder):
    first = holder("held")
    refused(output)
    first.kill()
    first.wait()
    with held(output):
        refused(output)


def test_a_killed_parent_s_worker_must_be_gone_first(output, holder):
    worker = holder("shared")
    refused(output)
    worker.kill()
    worker.wait()
    with held(output):
        pass


def test_nothing_is_left_of_it(output, tmp_path):
    with held(output), shared(output), shared(output):
        pass
    with pytest.raises(ZeroDivisionError), held(output):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    with held(output):
        pass


def test_a_worker_that_outlives_its_parent_s_job_still_counts(output):
    with held(output):
        worker = shared(output)
        worker.__enter__()
    refused(output)
    worker.__exit__(None, None, None)
    with held(output):
        pass


def test_outputs_do_not_hinder_each_other(output, tmp_path):
    with held(output), held(tmp_path / "b.tif"), shared(output):
        pass


def test_a_folder_that_takes_no_file_is_told(tmp_path):
    with pytest.raises(OutputError, match=r"b\.tif: cannot be written"):
        held(tmp_path / "missing" / "b.tif").__enter__()
