# SPDX-License-Identifier: Apache-2.0
"""A call of the agent's own through each LSM hook, to see that what is attached there works."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from refagent.errors import AgentError, Refused

#: What the file is: it can be run, opened and mapped.
CONTENT: Final = b"#!/bin/true\n# run by a probe of IMA\n"

#: Its digests, at most the 32 bytes that probes report, by enum hash_algo of the kernel's
#: include/uapi/linux/hash_info.h. Literals: in a guest, loading OpenSSL takes seconds.
DIGESTS: Final = {
    1: ("md5", "4f1b58e84de31a88a3d141d09c8faaaf"),
    2: ("sha1", "c8d6151e70a0f04a8dfb706254b2c794e46b04b6"),
    4: ("sha256", "b35502ff7c66723de0575c38c1006d32d287c89a61d12a4aca24fbac89c54f46"),
    5: ("sha384", "84f0a378af5d6933dfb369fa386e868af14848b111371dcda5ae3743373c4f2b"),
    6: ("sha512", "757cae652d2f0f6744cd2bf243b4233c4f63524a9d3669e92b10208abf597c08"),
}

_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC

#: By these errnos a call has not come to any hook. EPERM says nothing: a policy may have it.
#: ETXTBSY: another thread's child had our descriptor for a moment.
_LACKS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ETXTBSY})

#: Where it can lie; one may be read-only, or without room.
_FOLDERS: Final = ("/run", "/tmp", "/dev/shm", "/var/tmp")  # noqa: S108  names nobody can guess


@contextlib.contextmanager
def file(
    knowing: Collection[Callable[[Path], AbstractContextManager[None]]] = (),
) -> Iterator[Path]:
    """A new executable file, which nobody else knows.

    Args:
        knowing: who is to know where before it is made, and until it is gone.

    Raises:
        AgentError: it can be made nowhere.
    """
    name = f".refagent-{os.getpid()}-{os.urandom(8).hex()}"
    for folder in _FOLDERS:
        path = Path(os.path.realpath(folder), name)
        with contextlib.ExitStack() as stack:
            try:
                if os.statvfs(folder).f_flag & os.ST_NOEXEC:  # as /run is on many systems
                    continue
                for each in knowing:
                    stack.enter_context(each(path))
                _write(path)
            except OSError:
                continue
            try:
                yield path
            finally:
                _remove(path)
            return
    raise AgentError(f"no file that can be run can be made in {', '.join(_FOLDERS)}")


def _write(path: Path) -> None:
    descriptor = os.open(path, _NEW, 0o700)
    try:
        with open(descriptor, "wb") as script:  # noqa: PTH123  a descriptor, no path
            script.write(CONTENT)
    except OSError:
        _remove(path)
        raise


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        what = f"the agent's own file {path} cannot be removed: {error.strerror}"
        raise AgentError(what) from None


def call(hook: str, path: Path) -> None:
    """Makes a call that passes the hook with this file.

    Raises:
        Refused: it is not known how.
        AgentError: this process lacks what the call takes.
    """
    if hook not in _CALLS:
        raise Refused(f"no LSM hook that this agent knows; they are {', '.join(sorted(_CALLS))}")
    try:
        _CALLS[hook](path)
    except OSError as failure:
        if failure.errno in _LACKS:
            raise AgentError(f"a call of the agent's own: {failure.strerror}") from None
        # Else it is denied by somebody else; the programs may have run.


def _execute(path: Path) -> None:
    os.waitpid(os.posix_spawn(path, [str(path)], {}), 0)


def _open(path: Path) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def _map(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        mmap.mmap(descriptor, 0, mmap.MAP_PRIVATE, mmap.PROT_READ).close()
    finally:
        os.close(descriptor)


_CALLS: Final[Mapping[str, Callable[[Path], None]]] = {
    **dict.fromkeys(("bprm_check_security", "bprm_creds_for_exec"), _execute),
    **dict.fromkeys(("file_open", "file_post_open"), _open),
    "mmap_file": _map,
}
#: The hooks that chains can be on: those whose call is known.
HOOKS: Final = frozenset(_CALLS)
