"""Names and values that MLflow accepts.

MLflow takes letters, digits, ``_ - .``, spaces and ``/`` in the names of metrics, params and tags (a colon
too, but not on Windows), up to 250 characters, and no name that would mean another file: ``a//b``,
``a/../b``, ``/a``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

TAG_NAME_LENGTH = 250
"""The longest name that MLflow takes, in characters."""

NAME_LENGTH = 240
"""The longest name of a metric or param: it is part of a tag's name too, behind a prefix."""

PARAM_LENGTH = 6000
"""The longest value of a param, in characters."""

TAG_LENGTH = 8000
"""The longest value of a tag, in characters."""


def clean(name: str, limit: int = NAME_LENGTH) -> str:
    """The nearest name that MLflow accepts, at most ``limit`` long; two names can become one (see
    :class:`Names`).

    >>> clean("val/dice/grade 3+")
    'val/dice/grade 3_'
    >>> clean("a//../b")
    'a/_/__/b'
    """
    parts = [_part(part) for part in name.split("/")]
    return shortened("/".join(parts), limit, name)


def _part(part: str) -> str:
    kept = re.sub(r"[^\w.\- ]", "_", part).strip(" ")
    if not kept.strip("."):
        return "_" * max(len(kept), 1)
    return kept


def shortened(text: str, limit: int, origin: str | None = None) -> str:
    """The text itself, or its beginning and a digest of ``origin`` where it is longer than ``limit``."""
    if len(text) <= limit:
        return text
    return f"{text[: limit - 9].rstrip(' /')}-{_digest(origin or text)}"


def cut(text: str, limit: int) -> str:
    """The text, its end replaced by an ellipsis where it is longer than ``limit``; always UTF-8."""
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= limit else text[: limit - 3] + "..."


class Names:
    """Distinct names stay distinct: where two become one, the later gets a digest of itself as a suffix.

    Args:
        known: accepted name -> original, from before.
    """

    def __init__(self, known: Mapping[str, str] | None = None) -> None:
        self._originals = dict(known or {})
        self._accepted = {original: name for name, original in self._originals.items()}

    def __contains__(self, original: str) -> bool:
        return original in self._accepted

    def of(self, original: str) -> str:
        """The accepted name of an original one, always the same."""
        if original not in self._accepted:
            self._accept(original)
        return self._accepted[original]

    def _accept(self, original: str) -> None:
        name = plain = clean(original)
        attempt = 0
        while name in self._originals:
            suffix = f"-{_digest(original * (attempt + 1))}"
            name = plain[: NAME_LENGTH - len(suffix)].rstrip(" /") + suffix
            attempt += 1
        self._originals[name] = original
        self._accepted[original] = name


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested config as params: ``{"training": {"batch": 4}}`` becomes ``{"training.batch": "4"}``.

    Lists of plain values are JSON; lists of mappings are numbered (``augmentation.0.name``). Values longer
    than MLflow takes are cut: the whole config belongs into an artifact.
    """
    names = Names()
    return {names.of(key): cut(value, PARAM_LENGTH) for key, value in _leaves(values, prefix)}


def _leaves(value: Any, key: str) -> list[tuple[str, str]]:
    items: list[tuple[str, Any]] = []
    if isinstance(value, Mapping):
        items = [(str(name), inner) for name, inner in value.items()]
    elif isinstance(value, list | tuple) and any(isinstance(inner, Mapping) for inner in value):
        items = [(str(index), inner) for index, inner in enumerate(value)]
    if not items:
        return [(key, _text(value))] if key else []
    return [leaf for name, inner in items for leaf in _leaves(inner, f"{key}.{name}" if key else name)]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
