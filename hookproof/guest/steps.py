# SPDX-License-Identifier: Apache-2.0
"""The verbs that need no agent, each as one system call of this very thread.

A result is "ok", the name of the errno, or what the verb's line in
docs/scenarios.md says.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

#: What `links` counts, in the order of docs/scenarios.md.
LINK_KINDS: Final = ("fmod_ret", "kprobe", "fentry", "fexit", "lsm")

#: What stands for no directory in the calls of the *at family; linux/fcntl.h.
_AT_FDCWD: Final = -100

#: The entries that `fill` adds at once, and the numbers of those it has not added yet.
_BATCH: Final = 512
_NOBODY: Final = itertools.count()

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
    text = args["text"].encode()
    size, filling = args.get("size", len(text)), text or b"\0"
    with open(os.open(args["path"], flags, args["mode"]), "wb") as file:  # noqa: PTH123
        file.write((filling * (size // len(filling) + 1))[:size])
    return "ok"


def _append(args: Arguments) -> Any:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
    with open(os.open(args["path"], flags), "wb") as file:  # noqa: PTH123
        file.write(args["text"].encode())
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
    with contextlib.ExitStack() as stack:
        path = argv[0]
        if args.get("via") == "memfd" or "replaced_by" in args:
            path = _opened(args, stack)
        if "uid" in args:
            pid = _spawn_as(args["uid"], path, argv)
        else:
            from hookproof.guest import pages

            pid = pages.spawn(path, argv, alone=path == argv[0])
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status < 0:
        return {"signal": signal.Signals(-status).name}
    return {"exit": status} if status else "ok"


def _opened(args: Arguments, stack: contextlib.ExitStack) -> str:
    """The file as a descriptor of ours, opened before its name is another's; or a copy of it."""
    path = args["argv"][0]
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    if args.get("via") == "memfd":
        copy = os.memfd_create(Path(path).name)
        stack.callback(os.close, copy)
        os.sendfile(copy, fd, 0, os.fstat(fd).st_size)
        fd = copy
    if "replaced_by" in args:
        os.rename(args["replaced_by"], path)  # noqa: PTH104
    return f"/proc/self/fd/{fd}"


def _spawn_as(uid: int, path: str, argv: list[str]) -> int:
    """A child that becomes that user, and then the program; with the errno of either.

    Its group has another number, so that who takes the one for the other is found out.
    """
    group = uid + 1
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(group, group, group)
            os.setresuid(uid, uid, uid)
            os.execve(path, argv, os.environ)  # noqa: S606
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
    # Not read_text, to which each kind of line's end is the same.
    return {"text": Path(args["path"]).read_bytes().decode("utf-8", errors="replace")}


def _links(args: Arguments) -> Any:
    from refagent.libbpf import census

    function = args["function"]
    on_it = [link.kind for link in census.links() if link.function == function]
    if not on_it and not _exists(function):
        return "ENOENT"  # where any number but 0 would be wrong, and 0 says nothing
    return {kind: on_it.count(kind) for kind in LINK_KINDS}


def _exists(function: str) -> bool:
    """Whether the kernel has it; a kprobe can be on one that has no BTF."""
    from refagent.libbpf import btf

    if btf.vmlinux().function(function) is not None:
        return True
    with Path("/proc/kallsyms").open(encoding="ascii") as symbols:
        return any(line.split()[2] == function for line in symbols)


def _mount(args: Arguments) -> Any:
    if "lower" not in args:
        _libc_call("mount", b"tmpfs", os.fsencode(args["path"]), b"tmpfs", 0, None)
        return "ok"
    places = {"lower": args["lower"]}
    for name in ("upper", "work"):
        places[name] = f"{args['lower']}.{name}"
        os.mkdir(places[name])  # noqa: PTH102
    options = ",".join(f"{name}dir={place}" for name, place in places.items())
    path = os.fsencode(args["path"])
    _libc_call("mount", b"overlay", path, b"overlay", 0, os.fsencode(options))
    return "ok"


def _unmount(args: Arguments) -> Any:
    _libc_call("umount2", os.fsencode(args["path"]), 0)
    return "ok"


def _libc_call(name: str, *args: Any) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*args):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _attach(args: Arguments) -> Any:
    from hookproof.guest import foreign

    foreign.attach(args["function"], args["kind"], args.get("denies", ""))
    return "ok"


def _detach(args: Arguments) -> Any:
    from hookproof.guest import foreign

    foreign.detach(args["function"])
    return "ok"


def _map(name: str) -> Any:
    """The one map of that name; a context manager.

    Raises:
        OSError: ENOENT, there is none; ENOTUNIQ, there are several.
    """
    from refagent.libbpf import census
    from refagent.libbpf.maps import Map

    found = [each for each in census.maps() if each.name == name]
    if len(found) != 1:
        raise OSError(errno.ENOTUNIQ if found else errno.ENOENT, f"{len(found)} maps {name}")
    return Map.opened(found[0].id, name, found[0].key_size, found[0].value_size)


def _fill(args: Arguments) -> Any:
    with _map(args["map"]) as filled:
        added: list[bytes] = []
        full = False
        while not full:
            pairs = [(_nobody(filled.key_size), bytes(filled.value_size)) for _ in range(_BATCH)]
            done = filled.set_all(pairs)
            full = done < len(pairs)
            added += [key for key, _ in pairs[:done]]
        for key in added[max(len(added) - args["leaves"], 0) :]:
            filled.delete(key)
    return "ok"


def _nobody(size: int) -> bytes:
    """A key that is in no map yet: no thread has such an id, no program has such a number."""
    return next(_NOBODY).to_bytes(4, "little").ljust(size, b"\xff")


def _entries(args: Arguments) -> Any:
    with _map(args["map"]) as opened:
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
    "append": _append,
    "symlink": _symlink,
    "symlinkat": _symlinkat,
    "rename": _rename,
    "open": _open,
    "exec": _exec,
    "read": _read,
    "mount": _mount,
    "unmount": _unmount,
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
