# SPDX-License-Identifier: Apache-2.0
"""From a fresh clone to a working .venv: `python3 -m tools.setup`, which make runs first.

Each stage has a stamp in .venv that holds a digest of everything the stage depends on.
It is taken away before the stage starts and written after it ended well, so a set-up that
was killed half-way is done again, and one with nothing to do only reads some files.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from hookproof.needs import INCLUDE
from refagent import objects
from refagent.errors import BuildFailed
from tools.system import ROOT, SetupError, install_missing, logged

LOCK = "requirements.lock"


@dataclass(frozen=True)
class Stage:
    """A step of the set-up that runs in .venv's Python.

    Attributes:
        name: of the stamp.
        says: what it does, in a few words.
        inputs: the files that it depends on, as patterns below the root.
        products: what it makes, as patterns that must each match a file. Removed before
            it runs, so that nothing old can be taken for new.
        arguments: what .venv/bin/python is called with.
    """

    name: str
    says: str
    inputs: tuple[str, ...]
    products: tuple[str, ...]
    arguments: tuple[str, ...]


PIP = ("-m", "pip", "--no-input", "--disable-pip-version-check", "install")

STAGES: tuple[Stage, ...] = (
    Stage(
        "packages",
        f"installing the Python packages of {LOCK}",
        inputs=(LOCK,),
        products=(),
        # Wheels only: what is built here from source is the project itself.
        arguments=(*PIP, "--require-hashes", "--only-binary=:all:", "--requirement", LOCK),
    ),
    Stage(
        "project",
        "building the binding to libbpf",
        inputs=(
            "pyproject.toml",
            "setup.py",
            "refagent/libbpf/build.py",
            "refagent/libbpf/[!_]*.[ch]",
        ),
        products=(".venv/bin/hookproof", "refagent/libbpf/_libbpf*.so"),
        # A plain path file: the other kind of editable install costs each start 50 ms.
        arguments=(
            *(*PIP, "--no-deps", "--no-build-isolation"),
            *("--config-settings=editable_mode=compat", "--editable", "."),
        ),
    ),
)


def digest(paths: Iterable[Path], *words: str) -> str:
    """SHA-256 (hex) over the words, and over the paths and the contents of the files."""
    total = hashlib.sha256("\0".join(words).encode())
    for path in sorted(paths):
        if path.is_file():
            total.update(f"\0{path}\0".encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


@dataclass(frozen=True)
class Stamp:
    """Says that a stage ended well, and from which inputs."""

    path: Path

    def says(self, key: str) -> bool:
        """Whether the stage last ended well with this key."""
        try:
            return self.path.read_text() == key
        except OSError:
            return False

    @contextmanager
    def during(self, key: str) -> Iterator[None]:
        """Takes the stamp away, and puts it back with this key unless the block raises."""
        self.path.unlink(missing_ok=True)
        yield
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        new.write_text(key)
        new.replace(self.path)


def interpreter(venv: Path) -> Mapping[str, str]:
    """What .venv's Python says of itself; empty if there is none that works and has pip.

    A virtual environment stops working when the Python below it goes or changes its minor
    version, and when its folder is moved.
    """
    code = (
        "import importlib.util, json, sys\n"
        "print(json.dumps({'version': sys.version,\n"
        "    'pip': str(importlib.util.find_spec('pip') is not None)}))"
    )
    try:
        done = subprocess.run(
            [venv / "bin/python", "-I", "-c", code], capture_output=True, text=True, check=True
        )
        said: dict[str, str] = json.loads(done.stdout)
        shebang = (venv / "bin/pip").read_bytes().split(b"\n", 1)[0]
    except (OSError, subprocess.CalledProcessError):
        return {}
    works = said["pip"] == "True" and os.fsencode(venv) in shebang
    return said if works else {}


def python_stages(root: Path, log: Path, stages: Iterable[Stage] = STAGES) -> None:
    """Makes .venv if it is not there or broken, and runs the stages whose inputs changed.

    Raises:
        SetupError: a command failed; its stage has no stamp then.
    """
    venv = root / ".venv"
    python = interpreter(venv)
    if not python:
        print(f"setup: making .venv with {sys.executable}", flush=True)
        logged([sys.executable, "-m", "venv", "--clear", venv], log, folder=root)
        python = interpreter(venv)
    libbpf = (INCLUDE / "bpf").glob("libbpf*.h")
    shared = digest(libbpf, python["version"], str(root))
    for stage in stages:
        inputs = (path for pattern in stage.inputs for path in root.glob(pattern))
        products = [list(root.glob(pattern)) for pattern in stage.products]
        key = digest(inputs, shared, *stage.arguments)
        stamp = Stamp(venv / "stamps" / stage.name)
        if stamp.says(key) and all(products):
            continue
        print(f"setup: {stage.says}", flush=True)
        with stamp.during(key):
            for old in chain.from_iterable(products):
                old.unlink()
            logged([venv / "bin/python", *stage.arguments], log, folder=root)


def bpf_objects() -> None:
    """Compiles the BPF programs whose sources changed.

    Raises:
        SetupError: clang does not take them.
    """
    try:
        compiled = objects.refresh()
    except BuildFailed as failure:
        raise SetupError(f"setup: {failure}") from None
    if compiled:
        print(f"setup: compiled {len(compiled)} BPF programs", flush=True)


def main() -> int:
    """Sets the project up; 0 if it is ready for use.

    Two set-ups at once in one checkout: the second waits for the first.
    """
    logs = ROOT / ".setup"
    try:
        folder = os.open(ROOT, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(folder, fcntl.LOCK_EX)
        install_missing(logs / "apt.log")
        python_stages(ROOT, logs / "python.log")
        bpf_objects()
    except SetupError as failure:
        print(failure, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
