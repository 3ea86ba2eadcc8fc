"""``python -m medseg``: the same as the console script."""

from medseg.cli.app import entry

entry()
