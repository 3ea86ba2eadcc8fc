"""Dotted names of a network's parts and tensors: «backbone.layer1.0.conv1.weight» lies within «backbone.layer1»."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor


def within(name: str, part: str) -> bool:
    """Whether a tensor or module is the part, or lies in it."""
    return name == part or name.startswith(f"{part}.")


def prefixes(name: str) -> list[str]:
    """The parts that a tensor lies in, the largest first, and at the end itself."""
    return [*(name[:i] for i, letter in enumerate(name) if letter == "."), name]


def parts(names: Iterable[str], others: Iterable[str]) -> list[str]:
    """The fewest parts, or tensors, that hold all of ``names`` and none of ``others``."""
    held = {prefix for other in others for prefix in prefixes(other)}
    return list(dict.fromkeys(next(part for part in prefixes(name) if part not in held) for name in names))


def shape_of(tensor: Tensor | None) -> str:
    """A tensor's shape for a message."""
    return "none" if tensor is None else str(tuple(tensor.shape))


def listed(items: Sequence[str], most: int, between: str = ", ") -> str:
    """The first of a list's items, and how many more there are."""
    shown = between.join(items[:most])
    return f"{shown} and {len(items) - most} more" if len(items) > most else shown
