"""Choices with their reasons, and how they become a config that a person can read."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

WIDTH = 118
"""Columns of a config."""


@dataclass(frozen=True)
class Item:
    """One entry of a list that is long enough for each to have its own reason."""

    value: Any
    why: str


@dataclass(frozen=True)
class Choice:
    """One key of a config.

    Attributes:
        key: dotted: ``training.window``; at most one dot.
        value: what it is set to: plain values, or :class:`Item` one under the other.
        why: why, in words, with the numbers it follows from.
    """

    key: str
    value: Any
    why: str


def to_yaml(head: Sequence[str], choices: Iterable[Choice]) -> str:
    """A config: ``head`` as a comment, then every choice under its reason, section by section in their order."""
    lines = [f"# {line}".rstrip() for line in head]
    section = ""
    for choice in choices:
        first, _, key = choice.key.partition(".")
        if key and first != section:
            lines.append(f"{first}:")
        section = first if key else ""
        lines += _entry(key or first, choice, "  " if key else "")
    return "\n".join(lines) + "\n"


def _entry(key: str, choice: Choice, indent: str) -> Iterator[str]:
    yield from comment(choice.why, indent)
    if not _itemised(choice.value):
        yield from _plain(f"{indent}{key}: ", choice.value, indent + "  ")
        return
    yield f"{indent}{key}:"
    for item in choice.value:
        yield from comment(item.why, indent + "  ")
        yield from _plain(f"{indent}  - ", item.value, indent + "    ")


def _itemised(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Item) for item in value)


def comment(text: str, indent: str = "") -> list[str]:
    """Words as lines of a comment."""
    marked = f"{indent}# "
    return textwrap.wrap(
        text, WIDTH, initial_indent=marked, subsequent_indent=marked, break_long_words=False, break_on_hyphens=False
    )


def _plain(begin: str, value: Any, indent: str) -> Iterator[str]:
    """A value in YAML's flow style, on one line where it fits."""
    written = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True)
    flat = written.removesuffix("\n").removesuffix("\n...")
    broken = textwrap.wrap(flat, WIDTH - len(indent), break_long_words=False, break_on_hyphens=False)
    if len(begin) + len(flat) <= WIDTH or not isinstance(value, list | dict) or _holds_text(value):
        yield begin + flat
        return
    yield begin.rstrip()
    yield from (indent + line for line in broken)


def _holds_text(value: Any) -> bool:
    """Whether a value holds strings with spaces, which must not be broken."""
    if isinstance(value, dict):
        return any(_holds_text(part) for pair in value.items() for part in pair)
    return any(map(_holds_text, value)) if isinstance(value, list) else isinstance(value, str) and " " in value
