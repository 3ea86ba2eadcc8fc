"""From an address to a package on this machine: downloaded once, and checked every time.

Packages are kept in the cache folder under the digest of their content, so a version that moves to another name or
alias is not downloaded again, and what was damaged is.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from medseg.addresses import Fetched
from medseg.errors import MedsegError, PackageError
from medseg.files import digest_of, read_json
from medseg.package import MODEL, WEIGHTS, check_weights
from medseg.quiet import quiet_mlflow
from medseg.registry.address import SCHEME, Address
from medseg.registry.mlflow_model import PACKAGE
from medseg.registry.registry import Registry
from medseg.scans.cache_folder import cache_folder
from medseg.tracking.store import Store

DIGEST = "medseg.package"
"""The tag of a version with the digest of its package."""


def fetch(address: str, expected: str | None = None) -> Fetched:
    """The package that ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION`` names, as a folder on this machine.

    Args:
        address: in the store of MLFLOW_TRACKING_URI, else ``sqlite:///mlflow.db``.
        expected: the digest of its package, where that is known; of a package that is here already no store is asked.

    Raises:
        MedsegError: for a store that cannot be opened, a name, alias or version that is not there, a version without a
            package of medseg, no permission, a package that is not the one that was registered, or one of another
            digest than is expected.
    """
    wanted = Address.parse(address)
    if expected is not None and expected.isalnum() and _whole(packages_folder() / expected, expected):
        return Fetched(address, address, expected, packages_folder() / expected)
    registry = Registry.open(Store.resolve())
    version = registry.version(wanted)
    digest = version.tags.get(DIGEST, "")
    if not digest.isalnum():
        raise PackageError(
            f"{wanted} (version {version.version}) was not registered by medseg: it holds no model package; "
            f"medseg register RUN --name {wanted.name} adds a version that does"
        )
    if expected not in (None, digest):
        raise PackageError(
            f"{wanted} in {registry.store.shown} is not the package that is meant (digest {digest[:12]}, not "
            f"{str(expected)[:12]}): name the store that keeps it with MLFLOW_TRACKING_URI"
        )
    found = Fetched(address, f"{SCHEME}{version.name}/{version.version}", digest, packages_folder() / digest)
    if not _whole(found.folder, digest):
        print(f"fetching {found.version} from {registry.store.shown}", file=sys.stderr)
        _download(registry, found)
    return found


def packages_folder() -> Path:
    """Where fetched packages are kept, by the digests of their content."""
    folder = cache_folder() / "models"
    folder.mkdir(exist_ok=True)
    return folder


def package_digest(folder: Path) -> str:
    """The digest of a package: of its card, which holds the digest of its weights."""
    return digest_of(read_json(folder / MODEL, "a model package's card", PackageError))


def _whole(folder: Path, digest: str) -> bool:
    """Whether a folder holds the package of that digest, undamaged."""
    try:
        if package_digest(folder) != digest:
            return False
        card = read_json(folder / MODEL, "a model package's card")
        check_weights(folder / WEIGHTS, card["weights_sha256"])
    except MedsegError:
        return False
    return True


def _download(registry: Registry, wanted: Fetched) -> None:
    """Puts a version's package into the folder, whole or not at all; several processes may do so at once."""
    quiet_mlflow()
    from mlflow.artifacts import download_artifacts

    said, folder, digest = wanted.version, wanted.folder, wanted.digest
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as beside:
        with registry.asked(said):
            uri = registry.store.uri
            copy = Path(download_artifacts(said, dst_path=beside, tracking_uri=uri, registry_uri=uri)) / PACKAGE
        if not _whole(copy, digest):
            raise PackageError(
                f"{said} in {registry.store.shown} is not the package that was registered there (its digest differs): "
                "it was changed or damaged; register the model again"
            )
        if folder.exists() and not _whole(folder, digest):
            shutil.rmtree(folder, ignore_errors=True)
        try:
            os.rename(copy, folder)
        except OSError:
            if not _whole(folder, digest):  # else another process was faster
                raise
