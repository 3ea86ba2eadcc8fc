"""What a registered model is called, and the addresses by which it is asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from medseg.errors import MedsegError

SCHEME = "models:/"
LATEST = "latest"
LONGEST = 250
"""The longest name or alias, in characters."""
FORMS = "models:/NAME@ALIAS, models:/NAME/VERSION or models:/NAME/latest"


@dataclass(frozen=True)
class Address:
    """A version of a registered model, in MLflow's words: ``models:/NAME@ALIAS``, ``/VERSION`` or ``/latest``.

    Attributes:
        name: the registered model's.
        alias: what points to the version; None where it is given by its number.
        version: the number; None for that of the alias, or the latest one.
    """

    name: str
    alias: str | None = None
    version: int | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """The address that a text is.

        Raises:
            MedsegError: where it has none of the forms.
        """
        rest = text.removeprefix(SCHEME).lstrip("/")
        name, at, alias = rest.rpartition("@")
        if at:
            return cls(check_name(name), alias=check_alias(alias))
        name, _, version = rest.rpartition("/")
        if not name or not (version == LATEST or re.fullmatch("[1-9][0-9]{0,9}", version)):
            raise MedsegError(f"{text} names no version of a registered model: write {FORMS}")
        return cls(check_name(name), version=None if version == LATEST else int(version))

    def __str__(self) -> str:
        """As it is written."""
        if self.alias is not None:
            return f"{SCHEME}{self.name}@{self.alias}"
        return f"{SCHEME}{self.name}/{self.version or LATEST}"


def check_name(name: str) -> str:
    """The name of a registered model, if it can be one.

    Raises:
        MedsegError: for one that no address could hold, or that MLflow refuses.
    """
    if not name.strip() or name.strip(". ") != name or re.search(r"[/:@\x00-\x1f]", name) or len(name) > LONGEST:
        raise MedsegError(
            f"{name!r} cannot name a registered model: a name has 1 to {LONGEST} characters, none of them / : @, "
            "and neither begins nor ends with a dot or a space"
        )
    return name


def check_alias(alias: str) -> str:
    """An alias, if it can be one.

    Raises:
        MedsegError: for one that MLflow refuses or keeps for itself.
    """
    reserved = alias.lower() == LATEST or re.fullmatch("[vV][0-9]+", alias)
    if reserved or not re.fullmatch(r"[\w-]+", alias) or len(alias) > LONGEST:
        raise MedsegError(
            f"{alias!r} cannot be an alias: it has letters, digits, _ and -, and is neither «latest» nor a version "
            "such as v3, which MLflow keeps for itself"
        )
    return alias
