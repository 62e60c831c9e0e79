# SPDX-License-Identifier: Apache-2.0
"""kernels.lock: what each pattern of kernels.txt resolved to, with SHA-256.

A JSON object, sorted by name, so that a change reads well in a diff:

    {"format": 1, "kernels": {"6.12": {
        "source": "debian:trixie/6.12.*", "version": "6.12.9-1", "release": "6.12.9+deb13-amd64",
        "packages": [{"name": …, "version": …, "size": BYTES, "sha256": HEX}, …]}}}

It holds no address: where packages come from is the host's affair, what they are is ours.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vm.errors import UsageProblem

FORMAT = 1
#: Values become folder names and arguments of apt, so their letters are limited here.
_SHAPES: dict[str, re.Pattern[str]] = {
    "source": re.compile(r"(?:build:)?debian:\S+"),
    "version": re.compile(r"[0-9][A-Za-z0-9.+~:-]*"),
    "release": re.compile(r"[0-9][A-Za-z0-9.+~_-]*"),
    "name": re.compile(r"[a-z0-9][A-Za-z0-9.+~-]*"),
    "sha256": re.compile(r"[0-9a-f]{64}"),
}
_RENEW = "restore it, or delete it and run: hookproof kernels fetch --update"


@dataclass(frozen=True)
class Package:
    """One Debian package.

    Attributes:
        name: as the archive calls it.
        version: its Debian version.
        size: of the .deb file, in bytes.
        sha256: of the .deb file, 64 hex digits.
    """

    name: str
    version: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Locked:
    """What one kernel's pattern resolved to.

    Attributes:
        source: the source it was resolved from, as kernels.txt writes it.
        version: the packages' common Debian version.
        release: what `uname -r` says.
        packages: everything to unpack, sorted by name.
    """

    source: str
    version: str
    release: str
    packages: tuple[Package, ...]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the packages' own digests."""
        return hashlib.sha256("\n".join(p.sha256 for p in self.packages).encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(package.size for package in self.packages)


def read(path: Path) -> dict[str, Locked]:
    """Reads kernels.lock; a file that is not there locks nothing.

    Returns:
        Kernel name → what it resolved to.

    Raises:
        UsageProblem: the file cannot be read or is not of this format.
    """
    try:
        raw = json.loads(path.read_bytes().decode("utf-8"), object_pairs_hook=_unique)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageProblem(f"cannot be read: {error.strerror}", where=str(path)) from None
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}:{error.colno}"
        raise UsageProblem(f"is no JSON: {error.msg}", where=where, hint=_RENEW) from None
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise UsageProblem(f"is no lock file: {error}", where=str(path), hint=_RENEW) from None
    try:
        return _decode(raw)
    except ValueError as error:
        raise UsageProblem(str(error), where=str(path), hint=_RENEW) from None


def write(path: Path, kernels: Mapping[str, Locked]) -> None:
    """Writes kernels.lock in one step: a reader sees the old file or the new one.

    Raises:
        UsageProblem: it cannot be written.
    """
    entries = {name: asdict(kernels[name]) for name in sorted(kernels)}
    text = json.dumps({"format": FORMAT, "kernels": entries}, indent=2) + "\n"
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with new.open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise UsageProblem(f"cannot be written: {error.strerror}", where=str(path)) from None


def _decode(raw: Any) -> dict[str, Locked]:
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise ValueError(f"is no lock file of format {FORMAT}")
    kernels = raw.get("kernels")
    if not isinstance(kernels, dict) or raw.keys() != {"format", "kernels"}:
        raise ValueError("must hold 'format' and 'kernels' and nothing else")
    return {name: _locked(name, value) for name, value in kernels.items()}


def _locked(name: str, raw: Any) -> Locked:
    keys = {"source", "version", "release", "packages"}
    if not isinstance(raw, dict) or raw.keys() != keys:
        raise ValueError(f"kernel '{name}' must have {', '.join(sorted(keys))}")
    listed = raw["packages"]
    if not isinstance(listed, list) or not listed:
        raise ValueError(f"kernel '{name}' has no packages")
    return Locked(
        _text(name, raw, "source"),
        _text(name, raw, "version"),
        _text(name, raw, "release"),
        tuple(sorted((_package(name, each) for each in listed), key=lambda p: p.name)),
    )


def _package(kernel: str, raw: Any) -> Package:
    keys = {"name", "version", "size", "sha256"}
    if not isinstance(raw, dict) or raw.keys() != keys:
        raise ValueError(f"a package of kernel '{kernel}' must have {', '.join(sorted(keys))}")
    size = raw["size"]
    if not isinstance(size, int) or isinstance(size, bool) or size <= 0:
        raise ValueError(f"size {size!r} of kernel '{kernel}' is no number of bytes")
    return Package(
        _text(kernel, raw, "name"),
        _text(kernel, raw, "version"),
        size,
        _text(kernel, raw, "sha256"),
    )


def _text(kernel: str, raw: dict[str, Any], key: str) -> str:
    value = raw[key]
    if not isinstance(value, str) or not _SHAPES[key].fullmatch(value):
        raise ValueError(f"{key} {value!r} of kernel '{kernel}' cannot be")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        twice = next(key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1)
        raise ValueError(f"'{twice}' stands there twice")
    return out
