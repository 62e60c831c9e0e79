# SPDX-License-Identifier: Apache-2.0
"""The agent's folder in a bpffs: what is pinned there outlives the agent.

    BASE/__agent__/{state,policy_counts,binaries,events}
    BASE/__override__/override_tasks
    BASE/__override__/{fmod_ret,kprobe}/FUNCTION/{prog,link}
    BASE/__sensor__/FUNCTION/{prog,link,policies,by_binary}
    BASE/__lsm__/{path_walks,calls,found_matches,digests}
    BASE/__lsm__/HOOK/{policies,by_binary,frames,chains,settings}
    BASE/__lsm__/HOOK/{filter,ima,send}/{prog,link}
    BASE/__policy__/NAME

With a kprobe override the sensor is the program that overrides, and is pinned at both places. What
is pinned for a policy stands in policypins.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from refagent.errors import AgentError, BpfError, Refused
from refagent.libbpf import pins

AGENT: Final = "__agent__"
OVERRIDE: Final = "__override__"
SENSOR: Final = "__sensor__"
LSM: Final = "__lsm__"
POLICY: Final = "__policy__"
#: The names of the pins in a function's folder.
_OF_A_FUNCTION: Final = ("prog", "link", "policies", "by_binary")


class Base:
    """The folder, made if it is not there, and held against a second agent.

    Args:
        path: below a bpffs.

    Raises:
        Refused: it is in no bpffs, cannot be written, or another agent has it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _check_bpffs(path)
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise Refused(f"the folder {path} for pins: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise Refused(f"another agent is running on {path}; stop it, or take another") from None

    def folder(self, *names: str) -> Path:
        """A folder of it, which need not be there."""
        return self.path.joinpath(*names)

    def pin(self, folder: Path, objects: Mapping[str, int]) -> None:
        """Pins objects by their descriptors, all or none.

        Raises:
            Refused: a name is taken by somebody's pin, or the kernel cannot pin such an object.
            BpfError: this process lacks what it takes, be it that a policy denies it.
        """
        with contextlib.ExitStack() as undo:
            undo.callback(self.prune, folder)
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                for name, fd in objects.items():
                    pins.pin(fd, folder / name)
                    undo.callback((folder / name).unlink)
            except OSError as error:
                raise Refused(f"the folder {folder} for pins: {error.strerror}") from None
            except BpfError as failure:
                if failure.lack:
                    raise
                raise Refused(str(failure)) from failure
            undo.pop_all()

    def unpin(self, folder: Path) -> None:
        """Removes a function's pins, and the folders that are empty then; what is open stays.

        By their names, as a list takes a descriptor, and there may be none left.

        Raises:
            AgentError: a pin cannot be removed; a policy can deny that.
        """
        self.remove(*(folder / name for name in _OF_A_FUNCTION))
        self.prune(folder)

    @staticmethod
    def remove(*places: Path) -> None:
        """Removes these pins as far as they are there.

        Raises:
            AgentError: as above.
        """
        for each in places:
            try:
                each.unlink(missing_ok=True)
            except OSError as error:
                raise AgentError(f"the pin {each} cannot be removed: {error.strerror}") from None

    @staticmethod
    def entries(folder: Path) -> list[Path]:
        """What is in a folder, which need not be there."""
        try:
            return list(folder.iterdir())
        except FileNotFoundError:
            return []

    def functions(self, *names: str) -> list[Path]:
        """The folders below a folder."""
        return [each for each in self.entries(self.folder(*names)) if each.is_dir()]

    def foreign(self) -> Path | None:
        """Something in it that is none of an agent's."""
        known = {AGENT, OVERRIDE, SENSOR, LSM, POLICY}
        return next((each for each in self.path.iterdir() if each.name not in known), None)

    def close(self) -> None:
        """Gives the folder up; it goes if it is empty."""
        with contextlib.suppress(OSError):
            self.path.rmdir()
        os.close(self._lock)

    def prune(self, folder: Path) -> None:
        """Removes a folder and those around it while they are empty, but not the base."""
        for each in (folder, *folder.parents):
            if each == self.path:
                return
            try:
                each.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return


def _check_bpffs(path: Path) -> None:
    """The mount that a path is on, from proc(5): mountinfo."""
    found: tuple[int, str, str] = (0, "", "")
    real = os.path.realpath(path)
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        point, options = fields.split(" ")[4:6]
        if Path(real).is_relative_to(point) and len(point) >= found[0]:
            found = (len(point), rest.split(" ")[0], options)
    _, kind, options = found
    if kind != "bpf":
        raise Refused(f"{path} is in no bpffs but in a {kind}: mount -t bpf bpf /sys/fs/bpf")
    if "ro" in options.split(","):
        raise Refused(f"{path} is in a bpffs that is mounted read-only")
