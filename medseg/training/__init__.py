"""Training: samples, losses, the loop."""

from medseg.quiet import quiet_mlflow

# MONAI imports MLflow where it finds it, and MLflow reads its telemetry switch when it is imported.
quiet_mlflow()
