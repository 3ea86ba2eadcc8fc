"""How MLflow's table of runs looks when it is opened: the columns that runs of medseg fill, without any set-up.

The UI keeps a view that was shared as a tag of its experiment, and takes the tag's name from its address.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

KEY = "medseg"
TAG = f"mlflow.sharedViewState.{KEY}"
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""The UI's menus are for trained models, not for language models."""

MM = "mm"
METRICS = ("best/dice", "best/hd95_{unit}", "test/dice", "test/hd95_{unit}", "train/loss")
PARAMS = ("network.name", "loss.name", "training.max_steps")
TAGS = ("medseg.kind", "stopped")
"""Few columns, so that all are seen without scrolling: the data set is the experiment's, the time MLflow's own."""

ANSWER_SECONDS = 30.0
MOST_EXPERIMENTS = 1000


def view(unit: str = MM) -> str:
    """The tag's value, for scans that state lengths in this unit."""
    metrics = [name.format(unit=unit) for name in METRICS]
    kinds = {"metrics": metrics, "params": PARAMS, "tags": TAGS}
    columns = [f"{kind}.`{name}`" for kind, names in kinds.items() for name in names]
    newest = {
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
    }
    return json.dumps({**newest, "searchFilter": "", "datasetsFilter": [], "selectedColumns": columns})


def unit_of(metrics: Iterable[str]) -> str | None:
    """The unit of the distances among metrics, by their names; None where no column of the table tells."""
    stems = [name.partition("{")[0] for name in METRICS if "{" in name]
    return next((name.removeprefix(stem) for name in metrics for stem in stems if name.startswith(stem)), None)


def page_of(address: str, headers: Mapping[str, str] | None = None) -> str:
    """The address of a server's table of runs in the experiment of the last run; its own where it has none.

    Args:
        address: the server's, without a password.
        headers: what each question says of who asks.
    """
    latest: dict[str, Any] = {"max_results": 1, "order_by": ["attributes.start_time DESC"]}
    try:
        found = _ask(address, headers, "experiments/search", max_results=MOST_EXPERIMENTS).get("experiments", [])
        ids = [experiment["experiment_id"] for experiment in found]
        last = _ask(address, headers, "runs/search", experiment_ids=ids, **latest)
        run = last["runs"][0]["info"]["experiment_id"]
    except (OSError, HTTPError, ValueError, LookupError):
        return address
    tags = {
        tag["key"] for experiment in found if experiment["experiment_id"] == run for tag in experiment.get("tags", [])
    }
    return f"{address}/#/experiments/{run}/runs" + (f"?viewStateShareKey={KEY}" if TAG in tags else "")


def _ask(address: str, headers: Mapping[str, str] | None, question: str, **content: Any) -> dict[str, Any]:
    """What a server answers to a question of MLflow's REST API."""
    body = json.dumps(content).encode()
    request = Request(f"{address}/api/2.0/mlflow/{question}", body, {"Content-Type": "application/json"})
    for name, value in (headers or {}).items():
        request.add_unredirected_header(name, value)  # for this server alone
    with urlopen(request, timeout=ANSWER_SECONDS) as answer:
        return dict(json.loads(answer.read()))
