"""What the options of ``medseg infer`` mean, once the model is known; what they cannot mean is said."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.errors import ConfigError, MedsegError, ScanError, nearest

if TYPE_CHECKING:
    from medseg.geometry import Box
    from medseg.inference.model import Model
    from medseg.inference.settings import InferenceSettings
    from medseg.postprocessing.settings import Step


def steps_of(text: str | None, instances: bool, model: Model, part: bool) -> tuple[Step, ...] | None:
    """What the command line says is done after the network; None leaves it to the package."""
    from medseg.postprocessing.settings import Instances, read_steps

    own = tuple(model.card.postprocessing)
    if text is None and part and own:
        names = ", ".join(step.name for step in own)
        print(f"note: the model's {names} are left out for a part of a scan: --postprocess does some", file=sys.stderr)
    if text is None and not instances:
        return None
    steps = (() if part else own) if text is None else () if text == "none" else read_steps(Path(text))
    if instances and not any(isinstance(step, Instances) for step in steps):
        steps = (*steps, Instances())
    return steps


def settings_of(model: Model, modes: list[str], windows: dict[str, Any]) -> InferenceSettings:
    """The package's way through a scan with what the command line says laid over it, resolved."""
    from pydantic import ValidationError

    given = {key: value for key, value in windows.items() if value is not None}
    if given and modes not in ([], ["sliding-window"]):
        raise MedsegError(f"--{next(iter(given)).replace('_', '-')} is for --sliding-window, not for --{modes[0]}")
    if given:
        modes = ["sliding-window"]
    own = model.card.inference
    try:
        wanted = own.model_validate({**own.model_dump(), **({"mode": modes[0]} if modes else {}), **given})
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise ConfigError(f"{option} {first['input']}: {first['msg']}") from None
    return wanted.resolved(model.network, model.card.window)


def budget_of(model: Model, memory: str | None, device_memory: str | None, workers: int) -> Any:
    """The memory that each process may hold, of what is given or free."""
    from medseg.inference.budget import Budget, parse_size

    if device_memory is not None and model.device.type != "cuda":
        raise ConfigError(f"--device-memory needs a CUDA device; this run is on {model.device.type}: give --memory")
    host, device = (None if text is None else parse_size(text) for text in (memory, device_memory))
    return Budget.of_machine(model.device, host, device).shared(workers)


def precision_of(wanted: bool, text: str | None, default: str) -> Any:
    """What probabilities are stored as; None where they are not wanted."""
    if text is not None and not wanted:
        raise MedsegError(f"--probability-type {text} is for --probabilities: give both, or neither")
    return one_of("--probability-type", text or default, ("uint8", "float16", "float32")) if wanted else None


def amp_of(wanted: bool | None, model: Model, settings: InferenceSettings) -> bool:
    """Half precision, where the device has it: the default of sliding windows alone, since tiles are exact."""
    if model.device.type != "cuda":
        if wanted:
            raise ConfigError(f"--amp needs a CUDA device; this run is on {model.device.type}")
        return False
    return settings.mode == "sliding-window" if wanted is None else wanted


def exclude(given: dict[str, bool], hint: str = "give one of them") -> None:
    """Refuses options that are given together and mean different things."""
    both = [name for name, is_given in given.items() if is_given]
    if len(both) > 1:
        raise MedsegError(f"{' and '.join(both)} exclude each other: {hint}")


def one_of(option: str, text: str | None, allowed: tuple[str, ...]) -> Any:
    """An option's word, where it is one of those that are allowed."""
    if text is not None and text not in allowed:
        raise ConfigError(f"{option} {text!r} is none of {', '.join(allowed)}{nearest(text, allowed)}")
    return text


def path_of(text: str) -> Path:
    """An input, unless it is a number that was meant for an option."""
    path = Path(text)
    if not path.exists() and _is_number(text):
        option = "--batch" if text.isdigit() and int(text) < 32 else "--tile"
        meant = f"{option} {text}" if text.replace(",", "").isdigit() else "--overlap, or --tile N in voxels,"
        raise ScanError(
            f"{text} is taken for an input and is no file; --tile-overlap takes no number. Was {meant} meant?"
        )
    return path


def _is_number(text: str) -> bool:
    try:
        [float(part) for part in text.split(",")]
        return True
    except ValueError:
        return False


def sizes_of(option: str, text: str | None) -> tuple[int, ...] | None:
    """The numbers of an option, one or one an axis; None where it is not given.

    Raises:
        ConfigError: for another text.
    """
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts) or len(parts) > 3:
        raise ConfigError(f"{option} {text!r} is no size: give one number, or one an axis, such as 572 or 132,132,116")
    return tuple(int(part) for part in parts)


def box_of(text: str | None) -> Box | None:
    """A part of a scan, from what is typed as first:last+1 of each axis."""
    if text is None:
        return None
    from medseg.geometry import Box

    sides = [part.split(":") for part in text.split(",")]
    whole = all(len(side) == 2 and all(end.strip().isdigit() for end in side) for side in sides)
    if not whole or not 2 <= len(sides) <= 3 or any(int(a) >= int(b) for a, b in sides):
        raise ConfigError(f"--box {text!r} is no box: give first:last+1 of each axis, such as 0:64,100:200,100:200")
    return Box(tuple(int(a) for a, _ in sides), tuple(int(b) for _, b in sides))
