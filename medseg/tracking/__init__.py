"""Writing trainings down in MLflow: one run per training, its curves, tables, pictures and files.

MLflow's telemetry is off, here and in the UI; MLflow is imported when a store is first opened.
"""

from medseg.tracking.run import Run
from medseg.tracking.store import Store

__all__ = ["Run", "Store"]
