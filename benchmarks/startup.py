"""How long ``medseg --help`` takes: the median of five runs, beside ``import torch``.

python benchmarks/startup.py
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "startup.json"


def seconds(command: list[str]) -> float:
    """The median of five whole processes, after one that warms the disk's cache."""
    times = []
    for _ in range(6):
        begun = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - begun)
    return statistics.median(times[1:])


def main() -> None:
    script = Path(sys.executable).with_name("medseg")
    result = {
        "command": "python benchmarks/startup.py",
        "date": time.strftime("%Y-%m-%d"),
        "medseg_help_seconds": round(seconds([str(script), "--help"]), 3),
        "import_torch_seconds": round(seconds([sys.executable, "-c", "import torch"]), 3),
    }
    print(json.dumps(result, indent=1))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
