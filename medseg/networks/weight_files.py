"""Weights in files and behind URLs, read without running code.

A file is safetensors, or torch's with tensors and plain values alone. A URL is https, and the SHA-256 of what lies
there is known before it is fetched; what is fetched is kept in the cache folder under that digest.
"""

from __future__ import annotations

import http.client
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    UnknownHandler,
)

import torch
from torch import Tensor

from medseg.errors import ConfigError, PackageError
from medseg.files import absent, sha256_of
from medseg.scans.cache_folder import cache_folder

SECONDS = 60
"""How long a server may stay silent."""
WRAPPERS = ("state_dict", "model")
"""Keys under which a checkpoint may hold its weights."""
PARALLEL = "module."
"""What torch's data-parallel wrappers put before every name."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict in a file, on the CPU.

    Raises:
        PackageError: for a file that is missing, damaged, holds more than tensors and plain values, or no state dict.
    """
    if path.is_dir():
        raise PackageError(f"{path} is a folder, not a file of weights; a model of medseg goes to training.init_from")
    if not path.is_file():
        raise PackageError(absent(path))
    content = _safetensors(path) if _is_safetensors(path) else _torch(path)
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise PackageError(f"{path} holds no state dict: names and their tensors belong there")
    return {str(key).removeprefix(PARALLEL): value for key, value in content.items()}


def _is_safetensors(path: Path) -> bool:
    """Its header is JSON, behind the header's length in eight bytes."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise PackageError(f"{path} is not readable as safetensors ({error}): copy it again") from None


def _torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise PackageError(
            f"{path} holds more than tensors and plain values, or no weights at all; it was not loaded, since such a "
            "file can run code: save its state_dict() alone, best as safetensors"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, IndexError):
        raise PackageError(f"{path} is damaged or holds no weights of torch or safetensors: copy it again") from None


def open_https(url: str) -> Any:
    """The response of an https server; nothing else is opened, by a redirection neither.

    Raises:
        OSError: where there is none.
    """
    opener = OpenerDirector()
    for handler in HANDLERS:
        opener.add_handler(handler())
    return opener.open(url, timeout=SECONDS)


class HttpsRedirects(HTTPRedirectHandler):
    """Follows a redirection to https alone."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        """The request that goes on.

        Raises:
            HTTPError: where it leads away from https.
        """
        if not newurl.startswith("https://"):
            raise HTTPError(newurl, code, "it redirects to what is not https", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


HANDLERS = (ProxyHandler, HTTPSHandler, HttpsRedirects, HTTPDefaultErrorHandler, HTTPErrorProcessor, UnknownHandler)
"""Those of ``urllib`` without the ones that open http, ftp, files and data."""


def cached(sha256: str) -> Path:
    """Where the weights of a digest lie once they were fetched."""
    return cache_folder() / f"weights-{sha256}"


def fetch(url: str, sha256: str, open_url: Callable[[str], Any] = open_https) -> Path:
    """The file behind a URL, from the cache folder where it lies there already.

    Args:
        url: https.
        sha256: 64 digits in hex, of the whole file.
        open_url: gives a readable response.

    Raises:
        ConfigError: where it cannot be fetched, or its digest differs: then nothing is kept.
    """
    kept = cached(sha256)
    if kept.is_file() and sha256_of(kept) == sha256:
        return kept
    handle, name = tempfile.mkstemp(prefix=".weights-", dir=kept.parent)
    beside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file, open_url(url) as response:
            shutil.copyfileobj(response, file, 1 << 20)
        found = sha256_of(beside)
        if found != sha256:
            raise ConfigError(
                f"{url}: SHA-256 is {found} and network.pretrained.sha256 says {sha256}; "
                f"{beside.stat().st_size} bytes came and none were kept: another file, or not all of it"
            )
        os.replace(beside, kept)
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = error.reason if type(error) is URLError else error
        raise ConfigError(f"{url} cannot be fetched ({why}): fetch it by hand and give its file") from None
    finally:
        beside.unlink(missing_ok=True)
    return kept
