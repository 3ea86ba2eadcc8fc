"""A YAML file with overrides laid over it, which remembers where each key was written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from medseg.errors import ConfigError, nearest
from medseg.files import absent


class YamlSource:
    """A config's content, and where each key of it was written."""

    def __init__(self, path: Path, content: dict[str, Any], node: yaml.Node | None) -> None:
        self.path = path
        self.content = content
        self.node = node
        self.overridden: dict[tuple[str, ...], str] = {}

    @classmethod
    def read(cls, path: Path) -> YamlSource:
        """Reads a file.

        Raises:
            ConfigError: where it is missing, no YAML, no mapping, or holds a key twice.
        """
        try:
            text = path.read_text(encoding="utf-8")
            content, node = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
        except FileNotFoundError:
            raise ConfigError(absent(path)) from None
        except (OSError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigError(f"{path} cannot be read as a config: {error}") from None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f":{mark.line + 1}" if mark else ""
            raise ConfigError(f"{path}{where}: not YAML: {getattr(error, 'problem', error)}") from None
        if not isinstance(content, dict):
            raise ConfigError(f"{path} holds no keys: a config is a mapping such as configs/unet_valid.yaml")
        _refuse_twins(path, node)
        return cls(path, content, node)

    def override(self, text: str) -> None:
        """Lays one ``key.sub=value`` over the content; the value is YAML."""
        key, equals, value = text.partition("=")
        keys = tuple(key.strip().split("."))
        if not equals or not all(keys):
            raise ConfigError(f"{text!r} is no override: write key.sub=value, such as training.max_steps=500")
        place = self.content
        for part in keys[:-1]:
            inner = place.get(part)
            place[part] = place = dict(inner) if isinstance(inner, dict) else {}
        try:
            place[keys[-1]] = yaml.safe_load(value)
        except (yaml.YAMLError, RecursionError):
            raise ConfigError(f"{text!r}: the value is not YAML; quote it") from None
        self.overridden[keys] = text

    def explain(self, error: ValidationError, model: type[BaseModel]) -> str:
        """The first problem that validating against ``model`` found, as one sentence."""
        problems = error.errors()
        first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
        keys = [str(part) for part in first["loc"] if not _is_branch(part)]
        dotted = ".".join(keys)
        where = self._where(keys)
        if first["type"] == "extra_forbidden":
            allowed = _keys_at(model, keys[:-1])
            return f"{where}: unknown key {dotted}{nearest(keys[-1], allowed)}; allowed: {', '.join(allowed)}"
        if first["type"] == "missing":
            return f"{where}: {dotted} is missing"
        message = first["msg"].removeprefix("Value error, ")
        return f"{where}: {dotted} is {first['input']!r}: {message}"

    def _where(self, keys: Sequence[str]) -> str:
        for depth in range(len(keys), 0, -1):
            if tuple(keys[:depth]) in self.overridden:
                return f"command line ({self.overridden[tuple(keys[:depth])]})"
        return f"{self.path}:{_line(self.node, keys)}"


def _is_branch(part: int | str) -> bool:
    """Whether a location's part is pydantic's name for a branch of a union, not a key."""
    branches = {"float", "int", "path", "str", "WebFile"}
    return isinstance(part, str) and (part in branches or part.startswith(("list[", "constrained")))


def _refuse_twins(path: Path, node: yaml.Node | None) -> None:
    """YAML takes the last of two equal keys without a word; a config must not hold two."""
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_twins(path, item)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if key.value in seen:
            raise ConfigError(f"{path}:{line}: key {key.value} stands twice, first in line {seen[key.value]}")
        seen[key.value] = line
        _refuse_twins(path, value)


def _line(node: yaml.Node | None, keys: Sequence[str]) -> int:
    """The line of a key, or of the nearest key above it."""
    line = node.start_mark.line + 1 if node else 1
    for part in keys:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == part), None)
        elif isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
            found = (node.value[int(part)], node.value[int(part)])
        else:
            found = None
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def _keys_at(model: Any, keys: Sequence[str]) -> list[str]:
    """The keys that a section allows."""
    for part in keys:
        if get_origin(model) is dict:
            candidates = list(get_args(model))
        else:
            annotation = model.model_fields[part].annotation if part in model.model_fields else None
            candidates = [annotation, *get_args(annotation)]
            if get_origin(annotation) is dict:
                model = annotation
                continue
        sections = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not sections:
            return []
        model = sections[0]
    return [] if get_origin(model) is dict else list(model.model_fields)
