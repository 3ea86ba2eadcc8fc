"""``medseg ui``."""

from __future__ import annotations

from typing import Annotated, Optional

import typer


def ui(
    port: Annotated[
        Optional[int], typer.Option(min=1, max=65535, help="On 127.0.0.1; else the first free one from 5000.")
    ] = None,
    store: Annotated[Optional[str], typer.Option(help="MLflow's store, where it is not the default one.")] = None,
) -> None:
    """Open MLflow's UI on the store that the runs go to."""
    from medseg.tracking.store import Store
    from medseg.tracking.ui import serve

    serve(Store.resolve(store), port)
