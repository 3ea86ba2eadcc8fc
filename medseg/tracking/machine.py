"""What the machine was busy with while a run went on, as MLflow's page «System metrics» shows it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.system_metrics.metrics.base_metrics_monitor import BaseMetricsMonitor

SECONDS = 15.0
"""Between two looks."""

PREFIX = "system/"

Log = Callable[[dict[str, float], int], None]


@contextlib.contextmanager
def watched(log: Log, first: int = 0) -> Iterator[None]:
    """Logs the load of processors, memory, disk and network now and then while the block runs.

    Args:
        log: takes values by name, and their number.
        first: the number of the first look: a run that goes on counts on.
    """
    ended = threading.Event()
    thread = threading.Thread(target=_look, args=(log, first, ended), name="medseg-machine", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _look(log: Log, number: int, ended: threading.Event) -> None:
    monitors = _monitors()
    for monitor in monitors:
        _seen(monitor)  # what passed until now is not this run's
    over = False
    while not over:
        over = ended.wait(SECONDS)
        log({name: value for monitor in monitors for name, value in _seen(monitor).items()}, number)
        number += 1


def _seen(monitor: BaseMetricsMonitor) -> dict[str, float]:
    """What a monitor sees now; nothing where its driver fails."""
    found: dict[str, float] = {}
    with contextlib.suppress(Exception):
        monitor.collect_metrics()
        found = {f"{PREFIX}{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
    monitor.clear_metrics()
    return found


def _monitors() -> list[BaseMetricsMonitor]:
    """MLflow's own: of the processor, the disk and the network; of the GPUs where there are any."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    found = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    with contextlib.suppress(Exception):  # whatever the driver raises where there is no GPU
        found.append(GPUMonitor())
    return found
