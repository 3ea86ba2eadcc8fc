"""How MLflow's table of runs looks when it is opened: the columns that runs of medseg fill, without any set-up.

The UI keeps a view that was shared as a tag of its experiment, and takes the tag's name from its address.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

KEY = "medseg"
TAG = f"mlflow.sharedViewState.{KEY}"
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""The UI's menus are for trained models, not for language models."""

METRICS = ("best/dice", "best/hd95_mm", "test/dice", "test/hd95_mm", "train/loss")
PARAMS = ("network.name", "loss.name", "training.max_steps")
TAGS = ("medseg.kind", "stopped")
"""Few columns, so that all are seen without scrolling: the data set is the experiment's, the time MLflow's own."""

ANSWER_SECONDS = 30.0
MOST_EXPERIMENTS = 1000


def view() -> str:
    """The tag's value."""
    kinds = {"metrics": METRICS, "params": PARAMS, "tags": TAGS}
    columns = [f"{kind}.`{name}`" for kind, names in kinds.items() for name in names]
    newest = {
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
    }
    return json.dumps({**newest, "searchFilter": "", "datasetsFilter": [], "selectedColumns": columns})


def page_of(address: str) -> str:
    """The address of a server's table of runs in the experiment of the last run; its own where it has none.

    Args:
        address: the server's.
    """
    try:
        found = _ask(address, "experiments/search", max_results=MOST_EXPERIMENTS).get("experiments", [])
        ids = [experiment["experiment_id"] for experiment in found]
        last = _ask(address, "runs/search", experiment_ids=ids, max_results=1, order_by=["attributes.start_time DESC"])
        run = last["runs"][0]["info"]["experiment_id"]
    except (OSError, HTTPError, ValueError, LookupError):
        return address
    tags = {
        tag["key"] for experiment in found if experiment["experiment_id"] == run for tag in experiment.get("tags", [])
    }
    return f"{address}/#/experiments/{run}/runs" + (f"?viewStateShareKey={KEY}" if TAG in tags else "")


def _ask(address: str, question: str, **content: Any) -> dict[str, Any]:
    """What a server answers to a question of MLflow's REST API."""
    body = json.dumps(content).encode()
    request = Request(f"{address}/api/2.0/mlflow/{question}", body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=ANSWER_SECONDS) as answer:
        return dict(json.loads(answer.read()))
