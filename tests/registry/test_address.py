"""What is an address of a registered model, and what is said of a text that is none."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.errors import MedsegError
from medseg.registry.address import Address, check_alias, check_name

NAMES = st.text(string.ascii_letters + string.digits + "_- .é", min_size=1, max_size=30).filter(
    lambda name: name.strip(". ") == name
)
ALIASES = st.text(string.ascii_letters + "_-", min_size=1, max_size=20).filter(
    lambda alias: alias.lower() not in ("latest",)
)


@given(NAMES, ALIASES, st.integers(1, 10**9))
def test_an_address_is_what_it_is_written_as(name: str, alias: str, number: int) -> None:
    for address in (Address(name, alias=alias), Address(name, version=number), Address(name)):
        assert Address.parse(str(address)) == address


@given(NAMES)
def test_mlflow_takes_every_name_that_is_taken_here(name: str) -> None:
    from mlflow.utils.validation import _validate_model_name

    _validate_model_name(check_name(name))


@given(ALIASES)
def test_mlflow_takes_every_alias_that_is_taken_here(alias: str) -> None:
    from mlflow.utils.validation import _validate_model_alias_name, _validate_model_alias_name_reserved

    _validate_model_alias_name(check_alias(alias))
    _validate_model_alias_name_reserved(alias)


@pytest.mark.parametrize(
    "text", ["models:/", "models:/cells", "models:/cells/", "models:/cells/Production", "models:/a/0"]
)
def test_what_names_no_version_is_told_the_forms(text: str) -> None:
    with pytest.raises(MedsegError, match=r"write models:/NAME@ALIAS, models:/NAME/VERSION"):
        Address.parse(text)


@pytest.mark.parametrize("name", ["", " ", "a/b", "a:b", "a@b", ".", "..", ".a", "a ", "a\nb", "a" * 251])
def test_a_name_that_cannot_be_one_is_refused(name: str) -> None:
    with pytest.raises(MedsegError, match="cannot name a registered model"):
        check_name(name)


@pytest.mark.parametrize("alias", ["", "latest", "LATEST", "v3", "V12", "a b", "a/b", "a.b"])
def test_an_alias_that_cannot_be_one_is_refused(alias: str) -> None:
    with pytest.raises(MedsegError, match="cannot be an alias"):
        check_alias(alias)
