"""``python -m medseg``: the same as the console script."""

from medseg.cli.app import entry

if __name__ == "__main__":  # a worker process imports this module and must not run it
    entry()
