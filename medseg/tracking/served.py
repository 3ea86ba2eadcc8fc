"""MLflow's server without its assistant: a chat with language models whose tools read files and run commands here.

MLflow has no switch for it: it serves the assistant to whoever asks from this machine, and its pages open it at the
first visit. MLflow's command starts this application by its name among the entry points «mlflow.app».
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

NAME = "medseg"
"""The entry point's."""

ASSISTANT = "/ajax-api/3.0/mlflow/assistant"
REFUSAL = "medseg ui serves MLflow without its assistant"
PARAMS_ABOVE = "[tooltip-data-state]>div:has(>label>span)+div"
"""All params of a run, which MLflow writes above each of its pictures, so that the picture lies below what is seen of
its card; pointing at the run's name tells them too."""
SQUARE_AROUND = "div:has(>.rc-image)"
"""What MLflow draws around a picture of the grid, grey above and below a wide one."""
HEAD = (
    f"<style>[data-assistant-ui],{PARAMS_ABOVE}{{display:none!important}}"
    f"{SQUARE_AROUND}{{aspect-ratio:auto!important}}</style>"
    '<script>localStorage["mlflow.workflowType_v1"] ??= JSON.stringify("machine_learning")</script>'
)
"""Hides the assistant's parts and the params above pictures; and until somebody chooses, menus are for trained models,
not for language models."""


def create_app() -> FastAPI:
    """MLflow's application; it refuses (403) what is asked of the assistant, and its page has :data:`HEAD`."""
    from mlflow.server import app as pages
    from mlflow.server.fastapi_app import app
    from starlette.responses import HTMLResponse, PlainTextResponse
    from starlette.routing import Mount, Route

    page = (Path(pages.static_folder) / "index.html").read_text(encoding="utf-8")
    shown = page.replace("</head>", f"{HEAD}</head>", 1)
    headers = {"Cache-Control": "no-cache"}
    app.router.routes[:0] = [
        Mount(ASSISTANT, PlainTextResponse(REFUSAL, 403)),
        Route("/", lambda request: HTMLResponse(shown, headers=headers)),
    ]
    return app
