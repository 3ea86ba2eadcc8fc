"""MLflow kept quiet, before anything imports it.

MLflow reads the switch of its telemetry when it is imported, and MONAI imports MLflow where it finds it.
"""

from __future__ import annotations

import logging
import os
import sys

_ALWAYS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_UNLESS_SET = {
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


def quiet_environment() -> dict[str, str]:
    """The environment for a process that runs MLflow: telemetry off, little chatter, bounded waiting."""
    environment = {**_UNLESS_SET, **os.environ, **_ALWAYS}
    environment.pop("_MLFLOW_TESTING_TELEMETRY", None)  # it would overrule the switch
    return environment


def quiet_mlflow() -> None:
    """Switches MLflow's telemetry off and its chatter down in this process, before mlflow is imported."""
    os.environ.update(quiet_environment())
    os.environ.pop("_MLFLOW_TESTING_TELEMETRY", None)
    if imported := sys.modules.get("mlflow.telemetry.client"):
        imported.set_telemetry_client()
    for name in ("alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # It prints the trace of what it raises.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
