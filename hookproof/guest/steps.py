# SPDX-License-Identifier: Apache-2.0
"""The verbs that need no agent, each as one system call of this very thread.

A result is "ok", the name of the errno, or what the verb's line in
docs/scenarios.md says.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

#: What `links` counts, in the order of docs/scenarios.md.
LINK_KINDS: Final = ("fmod_ret", "kprobe", "fentry", "fexit", "lsm")

#: What stands for no directory in the calls of the *at family; linux/fcntl.h.
_AT_FDCWD: Final = -100

Arguments = Mapping[str, Any]


def errno_name(error: OSError) -> str:
    """`EPERM` and the like; the bare number if it has no name."""
    return errno.errorcode.get(error.errno or 0, str(error.errno))


def _mkdir(args: Arguments) -> Any:
    os.mkdir(args["path"], args["mode"])  # noqa: PTH102  the system call, nothing around it
    return "ok"


def _nest(args: Arguments) -> Any:
    here = os.open(args["path"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for _ in range(args["depth"]):
            with contextlib.suppress(FileExistsError):
                os.mkdir(args["name"], dir_fd=here)
            below = os.open(args["name"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = below
    finally:
        os.close(here)
    return "ok"


def _rmdir(args: Arguments) -> Any:
    os.rmdir(args["path"])  # noqa: PTH106
    return "ok"


def _unlink(args: Arguments) -> Any:
    os.unlink(args["path"])  # noqa: PTH108
    return "ok"


def _touch(args: Arguments) -> Any:
    os.close(os.open(args["path"], os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    return "ok"


def _write(args: Arguments) -> Any:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(args["path"])  # noqa: PTH108  it may be running, and could not be written to
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
    with open(os.open(args["path"], flags, args["mode"]), "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(args["text"])
    return "ok"


def _symlink(args: Arguments) -> Any:
    os.symlink(args["target"], args["path"])  # noqa: PTH211
    return "ok"


def _symlinkat(args: Arguments) -> Any:
    if args["bits"] == "32":
        from refagent.probes import ia32

        texts = (os.fsencode(args["target"]), _AT_FDCWD, os.fsencode(args["path"]))
        given = ia32.call(ia32.SYMLINKAT, *texts)
        if given < 0:
            raise OSError(-given, os.strerror(-given))
        return "ok"
    # The C library takes symlink(2) where no directory is given; an absolute path needs none.
    somewhere = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        os.symlink(args["target"], args["path"], dir_fd=somewhere)
    finally:
        os.close(somewhere)
    return "ok"


def _rename(args: Arguments) -> Any:
    os.rename(args["path"], args["to"])  # noqa: PTH104
    return "ok"


def _open(args: Arguments) -> Any:
    flags = 0
    for name in args["flags"]:
        flags |= getattr(os, name)
    os.close(os.open(args["path"], flags | os.O_CLOEXEC, 0o644))
    return "ok"


def _exec(args: Arguments) -> Any:
    argv = args["argv"]
    if "uid" in args:
        pid = _spawn_as(args["uid"], argv)
    elif threading.current_thread() is threading.main_thread():
        # The child reports the errno of its execve through the C library's vfork'ed spawn.
        pid = os.posix_spawn(argv[0], argv, os.environ)
    else:
        from hookproof.guest import pages

        pid = pages.spawn(argv)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status < 0:
        return {"signal": signal.Signals(-status).name}
    return {"exit": status} if status else "ok"


def _spawn_as(uid: int, argv: list[str]) -> int:
    """A child that becomes that user, and then the program; with the errno of either."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            os.execve(argv[0], argv, os.environ)  # noqa: S606
        except OSError as error:
            os.write(writing, bytes([error.errno or 0]))
        os._exit(127)
    os.close(writing)
    with open(reading, "rb") as failure:  # noqa: PTH123  a descriptor
        code = failure.read()
    if code:
        os.waitpid(pid, 0)
        raise OSError(code[0], os.strerror(code[0]))
    return pid


def _read(args: Arguments) -> Any:
    return {"text": Path(args["path"]).read_text(encoding="utf-8", errors="replace")}


def _links(args: Arguments) -> Any:
    from refagent.libbpf import census

    on_it = [link.kind for link in census.links() if link.function == args["function"]]
    return {kind: on_it.count(kind) for kind in LINK_KINDS}


def _attach(args: Arguments) -> Any:
    from hookproof.guest import foreign

    if "denies" in args:
        foreign.deny(args["function"], getattr(errno, args["denies"]))
    else:
        foreign.attach(args["function"], args["kind"])
    return "ok"


def _detach(args: Arguments) -> Any:
    from hookproof.guest import foreign

    foreign.detach(args["function"])
    return "ok"


def _fill(args: Arguments) -> Any:
    from refagent.libbpf import census
    from refagent.libbpf.maps import Map

    (found,) = (each for each in census.maps() if each.name == args["map"])
    # No thread has such an id, no program has such a number.
    pairs = [
        (n.to_bytes(4, "little").ljust(found.key_size, b"\xff"), bytes(found.value_size))
        for n in range(found.max_entries)
    ]
    with Map.opened(found.id, found.name, found.key_size, found.value_size) as filled:
        filled.set_all(pairs)
    return "ok"


def _entries(args: Arguments) -> Any:
    from refagent.libbpf import census
    from refagent.libbpf.maps import Map

    (found,) = (each for each in census.maps() if each.name == args["map"])
    with Map.opened(found.id, found.name, found.key_size, found.value_size) as opened:
        return {"count": sum(1 for _ in opened.items())}


def _thread(args: Arguments) -> Any:
    from hookproof.guest import threads

    threads.start(args["name"], args.get("id_of"))
    return "ok"


def _kill_held(_: Arguments) -> Any:
    from hookproof.guest import holds

    holds.kill()
    return "ok"


STEPS: Final[dict[str, Callable[[Arguments], Any]]] = {
    "mkdir": _mkdir,
    "nest": _nest,
    "rmdir": _rmdir,
    "unlink": _unlink,
    "touch": _touch,
    "write": _write,
    "symlink": _symlink,
    "symlinkat": _symlinkat,
    "rename": _rename,
    "open": _open,
    "exec": _exec,
    "read": _read,
    "links": _links,
    "attach": _attach,
    "detach": _detach,
    "fill": _fill,
    "entries": _entries,
    "thread": _thread,
    "kill-held": _kill_held,
}


def act(verb: str, args: Arguments) -> Any:
    """Does one call and says what it gave.

    Raises:
        KeyError: no such verb.
    """
    try:
        return STEPS[verb](args)
    except OSError as error:
        return errno_name(error)
