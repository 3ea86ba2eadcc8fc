"""The real ``medseg ui`` in a real browser: the table, the charts, the pictures, and a report that moves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from chromium import CHROMIUM, browser
from mlflow_pages import PICTURES, Pages

from medseg.cli.app import main
from medseg.datasets.phantom import write_phantom
from medseg.tracking import Store
from medseg.tracking.served import ASSISTANT

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")

CONFIG = """
name: organs
data: {validation: 0.3}
network: {name: unet3d, dims: 3, width: 2, depth: 1, padding: same}
training: {window: [16], max_steps: 2, validations: 1, warmup_steps: 0, workers: 0}
tracking: {pictures: 1}
"""
HEAD_OF = "image.closest('[tooltip-data-state] ~ div').previousElementSibling.getBoundingClientRect()"
"""Where the name of the run stands, above a picture."""
COLUMNS = ["best/dice", "best/hd95_mm", "train/loss", "loss.name", "network.name", "training.max_steps"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with one run, «tiny», of a phantom in three axes."""
    folder = tmp_path_factory.mktemp("ui")
    data = write_phantom("organs3d", folder / "phantom", 3, (16, 20, 18))
    store = Store.resolve("sqlite:///mlflow.db", folder)
    (folder / "organs.yaml").write_text(CONFIG)
    words = [f"data.root={data}", f"tracking.uri={store.uri}", "-o", str(folder / "tiny")]
    assert main(["train", str(folder / "organs.yaml"), *words]) == 0
    return store


@pytest.fixture(scope="module")
def pages(trained: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    """The page whose address ``medseg ui`` prints."""
    command = [sys.executable, "-m", "medseg", "ui", "--store", trained.uri]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        address = server.stdout.readline().strip()
        with browser(tmp_path_factory.mktemp("profile")) as opened:
            yield Pages(opened, address, 1800, 900)
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def run(trained: Store) -> str:
    """The run's id."""
    client = trained.client()
    found = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    return str(found[0].info.run_id)


def test_the_table_has_the_columns_that_tell_runs_apart(pages: Pages, trained: Store, run: str) -> None:
    shown = pages.columns()
    assert shown[0] == "Run Name" and [column for column in shown if column in COLUMNS] == COLUMNS
    row, best = pages.table(), trained.client().get_run(run).data.metrics["best/hd95_mm"]
    assert "tiny" in row and "unet3d" in row and f"{best:.6g}"[:6] in row


def test_the_assistant_is_neither_shown_nor_asked(pages: Pages) -> None:
    parts = "[...document.querySelectorAll('[data-assistant-ui]')]"
    assert pages.browser.run(f"{parts}.every((part) => part.getClientRects().length === 0)")
    status = f"fetch('{ASSISTANT}/config').then((answer) => answer.status)"
    assert pages.browser.run(status) == 403
    assert "Model registry" in pages.browser.run("document.body.innerText")


def test_the_charts_are_drawn(pages: Pages) -> None:
    assert pages.open_charts() >= 3


def test_the_description_and_the_grid_have_pictures(pages: Pages, run: str) -> None:
    places = pages.open_description(run)
    assert any("charts~curves" in place for place in places) and any("cases~worst" in place for place in places)
    widths = pages.open_pictures(run, "overlay")
    assert widths and min(widths) > 0
    assert pages.slide_to_the_last() == [[0, 2]]


def test_nothing_is_between_a_pictures_head_and_the_picture(pages: Pages, run: str) -> None:
    pages.open_pictures(run, "cases")
    gaps = f"{PICTURES}.map((image) => image.getBoundingClientRect().top - {HEAD_OF}.bottom)"
    pages.browser.wait(f"((gaps) => gaps.length > 0 && Math.max(...gaps) < 10)({gaps})")


def test_no_param_says_that_nothing_was_given(trained: Store, run: str) -> None:
    params = trained.client().get_run(run).data.params
    assert params["network.width"] == "2" and params["tracking.pictures"] == "1"
    assert not {"", "null", "[]", "{}"} & set(params.values())


def test_a_key_moves_the_report_in_the_artifact_frame(pages: Pages, run: str) -> None:
    pages.open_report(run)
    painted = "viewer.planes[0].canvas.toDataURL()"
    pages.browser.key("Home")
    pages.wait_in_report("viewer.view.cursor[0] === 0")
    seen = pages.in_report(painted)
    pages.browser.key("ArrowUp")
    pages.wait_in_report("viewer.view.cursor[0] === 1")
    assert pages.in_report(painted) != seen


def test_the_pages_ask_nobody_else(pages: Pages) -> None:
    """All that this browser asked for until now."""
    here = pages.browser.run("location.origin")
    assert {place for place in pages.browser.requests if not place.startswith((here, "data:", f"blob:{here}"))} == set()
