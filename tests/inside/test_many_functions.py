# SPDX-License-Identifier: Apache-2.0
"""Two hundred functions with five policies each, all at once: each policy denies its own call.

Each policy has an errno of its own, so that a call that is denied for the sake of another one, or
of another function's, is seen as such.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from refagent.agent import Agent
from refagent.errors import Refused
from refagent.libbpf import btf, census
from refagent.policy import Policy
from tests.inside.things import OVERRIDE, SENSOR, error_of

#: With 30 sequences or more, which is what one of the kernels gets; else fewer, as each takes half
#: a second under emulation.
FUNCTIONS: Final = 200
EACH: Final = 5
#: Of the first policy. No number that the kernel's own code looks for, such as ERESTARTSYS (512).
FIRST_ERRNO: Final = 1000
#: No process is this user's or a later one's.
NOBODY: Final = 54321
#: Descriptors: a function takes about a dozen.
DESCRIPTORS: Final = 8192

PR_GET_DUMPABLE, PR_GET_KEEPCAPS, PR_GET_TIMING, PR_GET_SECCOMP = 3, 7, 13, 21
PR_GET_TIMERSLACK, PR_GET_NO_NEW_PRIVS = 30, 39


@dataclass(frozen=True)
class ByPath:
    """A function whose policies are each about a folder, or about a file in it.

    Attributes:
        call: what calls it, with the file.
        file: the name of the file, of which there is one in each folder; or of what is made.
        about_file: whether the path is the file's; else it is the folder's.
    """

    call: Callable[[Path], object]
    file: str
    about_file: bool = False


@dataclass(frozen=True)
class ByValue:
    """A function whose policies are each about one value of an argument.

    Attributes:
        call: what calls it, with the value.
        argument: which one it is.
        values: five that are denied, and last one that is not.
    """

    call: Callable[[int], object]
    argument: int
    values: tuple[int, int, int, int, int, int]


def _prctl(option: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, 0, 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _fcntl(command: int) -> None:
    with Path("/dev/null").open("rb") as null:
        fcntl.fcntl(null, command)


#: The functions that are called here; which other functions a call comes through is no matter.
PATHS: Final = {
    "security_path_mkdir": ByPath(os.mkdir, "new"),
    "security_path_mknod": ByPath(os.mknod, "node"),
    "security_path_rmdir": ByPath(os.rmdir, "folder"),
    "security_path_unlink": ByPath(os.unlink, "unlinked"),
    "security_path_symlink": ByPath(lambda place: place.symlink_to("x"), "symlink"),
    "security_path_link": ByPath(lambda place: os.link(place.parent / "file", place), "link"),
    "security_path_rename": ByPath(lambda place: place.rename(f"{place}-2"), "renamed"),
    "security_path_chmod": ByPath(lambda place: place.chmod(0o600), "changed", about_file=True),
    "security_path_chown": ByPath(lambda place: os.chown(place, 0, 0), "given", about_file=True),
    "security_path_truncate": ByPath(lambda place: os.truncate(place, 0), "cut", about_file=True),
    "security_file_open": ByPath(lambda place: place.read_bytes(), "read", about_file=True),
    "security_inode_getattr": ByPath(os.stat, "asked", about_file=True),
}
VALUES: Final = {
    "security_task_setnice": ByValue(
        lambda nice: os.setpriority(os.PRIO_PROCESS, 0, nice), 1, (1, 2, 3, 4, 5, 0)
    ),
    "security_task_setrlimit": ByValue(
        lambda which: resource.setrlimit(which, resource.getrlimit(which)),
        1,
        (
            *(resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_DATA),
            *(resource.RLIMIT_STACK, resource.RLIMIT_NPROC, resource.RLIMIT_CORE),
        ),
    ),
    "security_task_prctl": ByValue(
        _prctl,
        0,
        (
            *(PR_GET_DUMPABLE, PR_GET_KEEPCAPS, PR_GET_TIMING, PR_GET_SECCOMP),
            *(PR_GET_TIMERSLACK, PR_GET_NO_NEW_PRIVS),
        ),
    ),
    "security_socket_create": ByValue(
        lambda family: socket.socket(family, socket.SOCK_DGRAM).close(),
        0,
        (
            *(socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET),
            *(socket.AF_VSOCK, socket.AF_UNIX),
        ),
    ),
    "security_file_fcntl": ByValue(
        _fcntl,
        1,
        (
            *(fcntl.F_GETFL, fcntl.F_SETFL, fcntl.F_SETFD, fcntl.F_GETSIG, fcntl.F_GETLEASE),
            fcntl.F_GETFD,
        ),
    ),
}


@pytest.fixture(autouse=True)
def _descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, max(DESCRIPTORS, before[1])))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """One for each policy of a function, and last one that no policy is about."""
    made = [tmp_path / str(number) for number in range(EACH + 1)]
    for place in made:
        (place / "folder").mkdir(parents=True)
        for name in ("file", "unlinked", "renamed", "changed", "given", "cut", "read", "asked"):
            (place / name).write_bytes(b"x")
    return made


def own(function: str, folders: list[Path]) -> list[dict[str, Any]]:
    """What its policies ask for."""
    if function in PATHS:
        how = PATHS[function]
        return [
            {"path": str(place / how.file if how.about_file else place)} for place in folders[:EACH]
        ]
    if function in VALUES:
        mine = {"pid": os.getpid(), "argument": VALUES[function].argument}
        return [mine | {"value": value} for value in VALUES[function].values[:EACH]]
    return [{"uid": NOBODY + number} for number in range(EACH)]


def calls(function: str, folders: list[Path]) -> list[int]:
    """What calls of it give, one for each policy, and one that none is about."""
    if function in PATHS:
        how = PATHS[function]
        return [error_of(how.call, place / how.file) for place in folders]
    return [error_of(VALUES[function].call, value) for value in VALUES[function].values]


@pytest.mark.usefixtures("_expedited")
def test_of_two_hundred_functions_each_denies_its_own_calls(
    folders: list[Path], sequences: int
) -> None:
    functions = min(FUNCTIONS, 20 + 6 * sequences)
    known = btf.vmlinux()
    there = [each for each in known.functions("security_") if _returns_int(each)]
    sample = [each for each in (*PATHS, *VALUES) if each in there]
    half = len(sample) // 2
    others = [each for each in there if each not in sample]
    errnos: dict[str, list[int]] = {}
    refused: list[str] = []
    with Agent() as agent:
        # Some of those that are called come first and the others last, when ids are greatest.
        wanted = [*sample[:half], *others]
        while wanted and len(errnos) < functions - (len(sample) - half):
            _load(agent, wanted.pop(0), folders, errnos, refused)
        for each in sample[half:]:
            _load(agent, each, folders, errnos, refused)
        while wanted and len(errnos) < functions:  # for those that this kernel refused
            _load(agent, wanted.pop(0), folders, errnos, refused)
        print(f"{len(errnos)} functions, {len(agent.policies())} policies, refused: {refused}")
        assert len(errnos) == functions or not wanted
        sample = [each for each in sample if each in errnos]
        assert len(sample) > 12
        assert agent.status().functions == dict.fromkeys(sorted(errnos), "fmod_ret")
        links = Counter(
            (each.function, each.kind) for each in census.links() if each.kind in {OVERRIDE, SENSOR}
        )
        assert links == {(each, kind): 1 for each in errnos for kind in (OVERRIDE, SENSOR)}
        for each in sample:
            assert calls(each, folders) == [*errnos[each], 0], each
        for each in sample:
            counts = [agent.counts(f"{each}-{number}") for number in range(EACH)]
            assert {(c.denied, c.outvoted, c.lost) for c in counts} == {(1, 0, 0)}, each
        first, last = sample[0], sample[-1]
        for number in range(EACH):
            agent.unload(f"{first}-{number}")
        assert calls(last, folders) == [*errnos[last], 0]
        assert calls(first, folders) == [0] * EACH + [errno.EEXIST]
    assert calls(last, folders) == [0] * (EACH + 1)


def _returns_int(function: str) -> bool:
    found = btf.vmlinux().function(function)
    return found is not None and found.returns == "int"


def _load(
    agent: Agent,
    function: str,
    folders: list[Path],
    errnos: dict[str, list[int]],
    refused: list[str],
) -> None:
    first = FIRST_ERRNO + EACH * len(errnos)
    policies = [
        Policy(f"{function}-{number}", function, override=first + number, **what)
        for number, what in enumerate(own(function, folders))
    ]
    try:
        agent.load(policies[0])
    except Refused as refusal:
        refused.append(str(refusal))
        return
    for each in policies[1:]:
        agent.load(each)
    errnos[function] = list(range(first, first + EACH))
