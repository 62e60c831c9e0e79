# SPDX-License-Identifier: Apache-2.0
"""Installs the system packages that are missing, with apt where it may, else says how."""

from __future__ import annotations

import importlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from hookproof.distribution import NO_SERVER, Family, advice, family, packages
from hookproof.needs import NEEDS, Need, missing
from hookproof.needs_build import BUILD_NEEDS

ROOT = Path(__file__).resolve().parent.parent

NO_SERVER_TEXT = (
    "# hookproof's set-up installed openssh-server for the program alone, which its virtual\n"
    "# machines run. Remove this file to let this host run an ssh server.\n"
)


class SetupError(Exception):
    """The set-up cannot go on; the text says why and what to do, and is shown as it is."""


def root_prefix() -> tuple[str, ...] | None:
    """What to put before a command so that it runs as root, or None if we may not."""
    if os.geteuid() == 0:
        return ()
    if shutil.which("sudo") is None:
        return None
    allowed = subprocess.run(
        ["sudo", "-n", "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    return ("sudo", "-n") if allowed.returncode == 0 else None


def explain(lacking: Sequence[Need]) -> str:
    """Names what is missing, with the reason for each, and the command that installs it."""
    lines = ["setup: this host lacks what hookproof needs:"]
    lines += [f"  {need.name:22} {need.why}" for need in lacking]
    lines += ["setup: to install it, run", *(f"  {line}" for line in advice(lacking, family()))]
    return "\n".join(lines)


def logged(
    command: Sequence[str | Path], log: Path, *, folder: Path = ROOT, text: str = ""
) -> None:
    """Runs a command in a folder with `text` as its input, and adds what it says to a file.

    Raises:
        SetupError: it failed; the message has the end of what it said.
    """
    log.parent.mkdir(exist_ok=True)
    with log.open("a") as output:
        done = subprocess.run(
            command, cwd=folder, input=text, text=True, stdout=output, stderr=output, check=False
        )
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        words = shlex.join(map(str, command))
        raise SetupError(f"{tail}\nsetup: failed: {words}\nsetup: all it said is in {log}")


def install(lacking: Sequence[Need], debian: Family, prefix: tuple[str, ...], log: Path) -> None:
    """Installs the packages with apt, as root or through sudo, and says what it does.

    Raises:
        SetupError: apt failed, or something is missing even so.
    """
    names = packages(lacking, debian)
    print("setup: this host lacks", ", ".join(need.name for need in lacking))
    print(f"setup: installing {len(names)} Debian packages: {' '.join(names)}")
    print(f"setup: apt's output goes to {log}", flush=True)
    if "openssh-server" in names and not NO_SERVER.exists():
        print(f"setup: keeping the ssh server off on this host, by {NO_SERVER}", flush=True)
        logged([*prefix, "mkdir", "-p", str(NO_SERVER.parent)], log)
        logged([*prefix, "tee", str(NO_SERVER)], log, text=NO_SERVER_TEXT)
    # sudo drops the environment, and dpkg's questions would wait for an answer for ever.
    quiet = ("env", "DEBIAN_FRONTEND=noninteractive")
    options = ("-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0")
    logged([*prefix, *quiet, *debian.before, *options], log)
    logged([*prefix, *quiet, *debian.install, *options, *names], log)


def install_missing(log: Path) -> None:
    """Makes sure that this host has all that `NEEDS` lists, and if we may, `BUILD_NEEDS`.

    Raises:
        SetupError: something is missing, and we may not or could not install it.
    """
    lacking = missing((*NEEDS, *BUILD_NEEDS))
    if not lacking:
        return
    here, prefix = family(), root_prefix()
    if here is None or here.name != "debian" or prefix is None:
        # Whoever builds no kernel can do without what that takes.
        if lacking := missing(NEEDS):
            raise SetupError(explain(lacking))
        return
    install(lacking, here, prefix, log)
    importlib.invalidate_caches()
    still = missing(lacking)
    if still:
        raise SetupError(explain(still))
