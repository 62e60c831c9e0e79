# SPDX-License-Identifier: Apache-2.0
"""Builds a kernel from its source, out of the tree, and looks whether it is what was asked for."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from vm import family, kconfig, manifest, toolchain
from vm.errors import FetchProblem, HostProblem
from vm.recipe import WORDS, Recipe

Say = Callable[[str], None]

#: Bytes that a build takes: a tree, its objects with their debugging information, and to spare.
ROOM: Final = 4 << 30
#: Seconds for a build: one slow core takes less than an hour.
TIMEOUT: Final = 3 * 3600.0
#: Seconds between two lines of progress.
_PACE: Final = 20.0
_SEPARATOR: Final = re.compile(r"[\s:]")
_IMAGE: Final = "arch/x86/boot/bzImage"
#: kbuild's word for a file that it compiles, such as `  CC      mm/slub.o`.
_COMPILES: Final = re.compile(r"  (?:AS|CC) +(\S+)")
#: The line of a log that says why: the first match of the first pattern that matches at all.
_TELLING: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"\berror: ",
        r"undefined reference|command not found|No such file|No space left",
        r"\*\*\* ",
    )
)


@dataclass(frozen=True)
class Build:
    """A build of one kernel.

    Attributes:
        name: the kernel's, for the words.
        recipe: what it is built from.
        log: the file for all that make says.
        say: is told each line of progress.
    """

    name: str
    recipe: Recipe
    log: Path
    say: Say

    def require(self, folder: Path) -> None:
        """Makes sure that a build in a folder can begin: programs, its name, room.

        Raises:
            HostProblem: something is missing; in one line.
        """
        toolchain.require(self.name)
        if _SEPARATOR.search(str(folder)):
            what = f"{self.name}: kbuild takes neither space nor colon in a folder's name"
            raise HostProblem(what, where=str(folder), hint="set HOOKPROOF_CACHE")
        free = shutil.disk_usage(folder).free
        if free < ROOM:
            what = (
                f"{self.name}: a build takes {ROOM >> 30} GiB, and {free / (1 << 30):.1f} are free"
            )
            raise HostProblem(what, where=str(folder), hint="set HOOKPROOF_CACHE to a larger disk")

    def run(self, tree: Path, work: Path, into: Path) -> None:
        """Configures, checks, compiles, and lays the kernel out as the cache has them.

        Args:
            tree: the source; nothing is written there.
            work: a folder for the objects.
            into: the entry; gets `boot/vmlinuz-RELEASE`, `boot/config-RELEASE`, a manifest.

        Raises:
            FetchProblem: an option does not hold, or make fails; names the log.
            HostProblem: a program is missing.
            OSError: from the file system.
        """
        start, release = time.monotonic(), self.recipe.release
        (work / "asked").write_text(kconfig.text(self.recipe.options), encoding="utf-8")
        with self.log.open("w", encoding="utf-8") as log:
            make = _Make(self, tree, work, log)
            make(f"KCONFIG_ALLCONFIG={work / 'asked'}", "allnoconfig")
            self._check(work / ".config")
            found = make("-s", "--no-print-directory", "kernelrelease")
            if found != release:
                hint = "look for CONFIG_LOCALVERSION and files called localversion"
                raise FetchProblem(f"the source calls itself {found}, not {release}", hint=hint)
            jobs = len(os.sched_getaffinity(0))
            self.say(f"{self.name}: building {release} on {jobs} processors")
            make(f"-j{jobs}", "bzImage")
        files = {}
        # Without a lib/modules of its own, virtme-run takes the next one further up.
        for folder in (into / "boot", into / "lib" / "modules"):
            folder.mkdir(parents=True, exist_ok=True)
        for made, place in ((_IMAGE, "vmlinuz"), (".config", "config")):
            path = into / "boot" / f"{place}-{release}"
            shutil.copyfile(work / made, path)
            files[str(path.relative_to(into))] = manifest.digest(path)
        manifest.write(into, files)
        self.say(f"{self.name}: built in {time.monotonic() - start:.0f} s")

    def _check(self, configuration: Path) -> None:
        """Holds the final configuration against what was asked for."""
        unmet = kconfig.unmet(self.recipe.options, kconfig.read(configuration) or {})
        if unmet:
            hint = "this source lacks them, or something that they depend on was not asked for"
            what = f"options do not hold in the configuration: {', '.join(unmet)}"
            raise FetchProblem(what, hint=hint)


class _Make:
    """kbuild in one tree, which says now and then how far it is; of how many it cannot know."""

    def __init__(self, build: Build, tree: Path, work: Path, log: IO[str]) -> None:
        self._build, self._log = build, log
        self._objects = f"{work}/"
        # The folders' names differ with each cache, and are to be kept out of the kernel.
        flags = f"-fdebug-prefix-map={work}=objects -fdebug-prefix-map={tree}=source"
        maps = (f"KCFLAGS={flags}", f"KAFLAGS={flags}")
        self._argv = ("make", "-C", str(tree), f"O={work}", *WORDS, *maps)
        self._start = self._told = 0.0
        self._files = 0
        self._last = ""

    def __call__(self, *words: str) -> str:
        """Runs make with further words; the last line that it says.

        Raises:
            FetchProblem: it failed or was too slow.
        """
        self._start = self._told = time.monotonic()
        status = family.output(
            [*self._argv, *words], self._see, env=_environment(), timeout=TIMEOUT
        )
        if status:
            self._log.flush()
            late = time.monotonic() - self._start >= TIMEOUT
            said = f"no end after {TIMEOUT:.0f} s" if late else telling(self._build.log)
            hint = f"all it said is in {self._build.log}"
            raise FetchProblem(f"the build failed: {said or f'status {status}'}", hint=hint)
        return self._last

    def _see(self, line: str) -> None:
        self._log.write(f"{line}\n")
        self._last = line
        compiled = _COMPILES.match(line)
        self._files += compiled is not None
        now = time.monotonic()
        if now - self._told >= _PACE:
            self._told = now
            path = compiled[1].removeprefix(self._objects) if compiled else ""
            what = f"now {path.rpartition('/')[0] or 'linking'}"
            seconds = f"{now - self._start:.0f} s"
            self._build.say(f"{self._build.name}: {seconds}, {self._files} files compiled, {what}")


def telling(log: Path) -> str:
    """The line of a build's log that says best what went wrong; empty for an empty log."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    for pattern in _TELLING:
        if found := next(filter(pattern.search, lines), ""):
            return found
    return lines[-1] if lines else ""


def _environment() -> dict[str, str]:
    """Few variables: kbuild takes many for settings, and a make above us has its own in them."""
    names = ("HOME", "PATH", "TMPDIR")
    return {**{name: os.environ[name] for name in names if name in os.environ}, "LC_ALL": "C"}
