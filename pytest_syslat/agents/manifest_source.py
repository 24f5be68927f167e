"""An agent's manifests: read from a directory or a URL, their checksums and images pinned."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from pytest_syslat.agents.description import Manifests
from pytest_syslat.testbeds.protocol import TestbedError

FETCH_LIMIT_S = 30.0
SCHEMES = ("https://", "http://")

Object = dict[str, Any]


def load_manifests(manifests: Manifests, chosen: str | None, rootdir: Path) -> list[Object]:
    """All objects of the files, in their order.

    Args:
        manifests: Which files there are, and the pinned checksums and images.
        chosen: A directory or URL of the user's own, whose files need no checksums.
        rootdir: Below which other directories are.

    Raises:
        TestbedError: A file is missing, has another checksum, or is no YAML.
    """
    objects: list[Object] = []
    source = chosen or manifests.source
    base = source.rstrip("/") if source.startswith(SCHEMES) else str(rootdir / source)
    for index, name in enumerate(manifests.files):
        data = _fetched(f"{base}/{name}")
        if chosen is None and manifests.sha256:
            _check(name, data, manifests.sha256[index])
        try:
            loaded = [body for body in yaml.safe_load_all(data) if body]
        except yaml.YAMLError as error:
            raise TestbedError(f"{name} is no YAML: {' '.join(str(error).split())}") from None
        objects += loaded
    replaced = dict(each.split("=", 1) for each in manifests.images)
    return [_with_images(body, replaced) for body in objects]


def _fetched(place: str) -> bytes:
    try:
        if not place.startswith(SCHEMES):
            return Path(place).read_bytes()
        with urllib.request.urlopen(place, timeout=FETCH_LIMIT_S) as answer:  # noqa: S310
            return bytes(answer.read())
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        told = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        reason = " ".join(str(told).split())
        raise TestbedError(
            f"{place} cannot be read: {reason}; give a copy with --syslat-chart NAME=DIRECTORY"
        ) from None


def _check(name: str, data: bytes, wanted: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != wanted:
        raise TestbedError(
            f"{name} is not the file that was checked: its SHA-256 is {found} and not {wanted}"
        )


def _with_images(value: Any, replaced: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            key: replaced.get(item, item)
            if key == "image" and isinstance(item, str)
            else _with_images(item, replaced)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_with_images(item, replaced) for item in value]
    return value
