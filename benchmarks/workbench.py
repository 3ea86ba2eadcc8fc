"""What the benchmarks share: model packages, noise, commands that are watched from outside, results."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from medseg.datasets.labels import Labels
from medseg.scans.preprocessing import Preprocessing

if TYPE_CHECKING:
    from medseg.networks.network import Network

RESULTS = Path(__file__).parent / "results"
MEDSEG = [sys.executable, "-m", "medseg"]
POLL_SECONDS = 0.02


def account() -> dict[str, Any]:
    """The command, the date, and where it ran."""
    return {
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "torch": version("torch"),
        "machine": machine(),
    }


def machine() -> str:
    """Processor, cores and memory, in words."""
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{_processor()}, {os.cpu_count()} cores, {gib:.0f} GiB"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def save(path: Path, result: Any) -> None:
    """Writes a result, and prints it."""
    text = json.dumps(result, indent=1)
    print(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


def load(path: Path) -> dict[str, Any]:
    """What :func:`save` wrote; nothing where there is none yet."""
    return json.loads(path.read_text()) if path.exists() else {}


@contextmanager
def scratch(folder: Path | None = None) -> Iterator[Path]:
    """A folder for scans, masks and medseg's cache, removed at the end."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="medseg-benchmark-") as made:
        os.environ["MEDSEG_CACHE"] = str(Path(made) / "cache")
        yield Path(made)


def smooth_noise(shape: Sequence[int], seed: int, sigma: float = 3.0) -> NDArray[np.uint8]:
    """Blobs in all grey values."""
    drawn = np.random.default_rng(seed).standard_normal(shape, np.float32)
    blobs = gaussian_filter(drawn, sigma, mode="wrap")
    return (128 + 48 * blobs / blobs.std()).clip(0, 255).astype(np.uint8)


def random_network(spec: dict[str, Any], seed: int = 0) -> Network:
    """A network with initial weights, in evaluation mode."""
    import torch

    from medseg import build_network

    torch.manual_seed(seed)
    return build_network(spec).eval()


def write_model(
    folder: Path, network: Network, spec: dict[str, Any], preprocessing: Preprocessing, labels: Labels | None = None
) -> Path:
    """A model package."""
    from medseg import __version__
    from medseg.package import ModelCard, write_package

    labels = labels or Labels({"background": 0, "blob": 1})
    card = ModelCard(
        medseg=__version__,
        network=spec,
        activation="softmax",
        labels=labels.to_dict(),
        preprocessing=preprocessing,
    )
    return write_package(folder, network, card)


@dataclass(frozen=True)
class Watched:
    """A process that has ended.

    Attributes:
        code: its exit code.
        seconds: from its start to its end.
        peak_bytes: the most that was seen resident, by the process's own high-water mark.
        killed_at: the bytes at which it was killed, or None.
        out: its standard output.
        err: its standard error.
    """

    code: int
    seconds: float
    peak_bytes: int
    killed_at: int | None
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """What it printed.

        Raises:
            RuntimeError: where it failed.
        """
        if self.code:
            raise RuntimeError(f"exit code {self.code}: {self.err}")
        return json.loads(self.out)


def watch(command: Sequence[str], limit_bytes: int | None = None) -> Watched:
    """Runs a command, looks at its memory all along, and kills it where it holds more than ``limit_bytes``."""
    begun, peak, killed_at = time.perf_counter(), 0, None
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        while process.poll() is None:
            peak = max(peak, *resident_of(process.pid))
            if limit_bytes is not None and peak > limit_bytes and killed_at is None:
                process.kill()
                killed_at = peak
            time.sleep(POLL_SECONDS)
        seconds = time.perf_counter() - begun
        out.seek(0)
        err.seek(0)
        return Watched(process.returncode, seconds, peak, killed_at, out.read().decode(), err.read().decode())


def resident_of(pid: int) -> tuple[int, int]:
    """What a process holds now and has held at most, as the kernel counts it; zeros for one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    sizes = {
        key: int(rest.split()[0]) * 1024 for key, _, rest in (line.partition(":") for line in lines) if "kB" in rest
    }
    return sizes.get("VmRSS", 0), sizes.get("VmHWM", 0)
