# SPDX-License-Identifier: Apache-2.0
"""A policy, in words that belong to no agent: which hook, which calls, what to do."""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from refagent.digests import Digest

#: Greatest process id, PID_MAX_LIMIT of include/linux/threads.h, and user id that is one.
_PIDS: Final = 2**22
_UIDS: Final = 2**32 - 2
#: What the names of LSM hooks begin with, where a hook can be a kernel function too.
LSM: Final = "lsm/"
#: Ways to override.
WAYS: Final = ("fmod_ret", "kprobe")
#: Arguments that are passed in registers on x86-64.
REGISTERS: Final = 6


@dataclass(frozen=True)
class Policy:
    """One rule on one kernel function.

    It matches a call that fits all of what is not None; where all is None, every call.

    Attributes:
        name: unique within an agent.
        hook: the kernel function, such as `security_path_mkdir`.
        path: the call's path argument (a `const struct path *`, for
            `security_path_mkdir` the directory in which something is made) is
            exactly this absolute path.
        prefix: the path argument begins with this text.
        path_argument: which argument of the function `path` and `prefix` are about, from 0;
            None: the first one that is a path.
        argument: which argument of the function `value` is about, from 0.
        value: this argument is exactly this number, of 64 bits; smaller ones are extended as
            the C type says.
        value_bits: how many bits of the argument are compared, 32 or 64; None: all of its type,
            and of a system call's, whose types the kernel does not tell, as many as the value
            needs.
        binary: the caller runs this program, an absolute path.
        pid: the caller's process id, as the first pid namespace has it.
        uid: the caller's real user id, as the first user namespace has it.
        override: the errno the caller gets instead, a positive number in 1..4095.
        by: how the result is overridden, `fmod_ret` or `kprobe`; None: as this kernel can.
        signal: what the caller gets; its number.
        post: each call gives an event.
        monitor: the calls are counted, and nothing is done about them.
        hash: the events are to have the digest of the call's file; at LSM hooks.
        digest_in: the file's digest is one of these, such as `sha256:` and hexadecimal; at LSM
            hooks.
        digest_not_in: the file's digest is none of these, or it has none.
    """

    name: str
    hook: str
    path: str | None = None
    prefix: str | None = None
    path_argument: int | None = None
    argument: int | None = None
    value: int | None = None
    value_bits: int | None = None
    binary: str | None = None
    pid: int | None = None
    uid: int | None = None
    override: int | None = None
    by: str | None = None
    signal: int | None = None
    post: bool = False
    monitor: bool = False
    hash: bool = False
    digest_in: tuple[str, ...] = ()
    digest_not_in: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The policy as JSON values; errno and signal by name where they have one."""
        plain = {key: getattr(self, key) for key in _FIELDS}
        named = {key: _NAMES[key](value) for key, value in plain.items() if key in _NAMES and value}
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in (plain | named).items()
            if value is not None and value is not False and value != ()
        }

    @classmethod
    def from_json(cls, raw: object) -> Policy:
        """The inverse of `to_json`; whether it makes sense is for `checked` to say.

        Raises:
            ValueError: an unknown key, a missing one, a wrong type, or an unknown name.
        """
        if not isinstance(raw, dict):
            raise ValueError("a policy is an object of keys and values")  # noqa: TRY004
        unknown = [repr(key) for key in raw if key not in _FIELDS]
        if unknown:
            raise ValueError(f"unknown key {min(unknown)} in a policy")
        for key, wanted in _FIELDS.items():
            if key not in raw and type(None) not in wanted:
                raise ValueError(f"a policy needs {key!r}")
            if type(raw.get(key)) not in wanted:
                raise ValueError(f"{key} of a policy cannot be {raw[key]!r}")
        plain = {key: _plain(key, value) for key, value in raw.items() if value is not None}
        return cls(**plain)

    def checked(self) -> Policy:
        """This policy, if it makes sense.

        Raises:
            ValueError: it asks for nothing, for something twice, or for half of something; a
                number is out of range.
        """
        for key, (least, most) in RANGES.items():
            number = getattr(self, key)
            if number is not None and not least <= number <= most:
                raise ValueError(f"{key} {number} is outside {least}..{most}")
        for wrong, what in (
            (
                self.by not in {None, *WAYS},
                f"can be overridden by {' or '.join(WAYS)}, not {self.by}",
            ),
            (self.by is not None and self.override is None, "has by, and no override"),
            (not self._does_something, f"does nothing: it needs one of {_words(_ACTIONS)}"),
            (
                self.path is not None and self.prefix is not None,
                "has both path and prefix: keep one",
            ),
            (
                self.path_argument is not None and not self.names_path,
                "has path_argument, and no path",
            ),
            (
                (self.argument is None) != (self.value is None),
                "needs both argument and value, or none",
            ),
            (
                self.value_bits is not None and self.value is None,
                "has value_bits, and no value",
            ),
            (
                self.value_bits not in {None, 32, 64},
                f"compares 32 or 64 bits, not {self.value_bits}",
            ),
            (
                self.value_bits == 32 and self.value is not None and not is_small(self.value),
                f"compares 32 bits, and {self.value} has more",
            ),
            (
                bool(self.digest_in and self.digest_not_in),
                "has both digest_in and digest_not_in: keep one",
            ),
            (
                self.needs_digest and not self.lsm,
                f"is about a digest, which only LSM hooks have: hook: {LSM}bprm_check_security",
            ),
            (
                self.hash and not self.post,
                "has hash, and no post: there is no event to have it",
            ),
            (self.by is not None and self.lsm, "has by, and an LSM hook"),
        ):
            if wrong:
                raise ValueError(f"policy {self.name} {what}")
        for digest in self.digests:
            Digest.parse(digest)
        return self

    @property
    def lsm(self) -> bool:
        """Whether its hook is one of LSM programs, `lsm/NAME`, and no kernel function."""
        return self.hook.startswith(LSM)

    @property
    def digests(self) -> tuple[str, ...]:
        """Those that it lists, one way or the other."""
        return self.digest_in or self.digest_not_in

    @property
    def needs_digest(self) -> bool:
        """Whether the call's file has to be hashed for it."""
        return self.hash or bool(self.digests)

    @property
    def names_path(self) -> bool:
        """Whether it is about calls with some path."""
        return self.path is not None or self.prefix is not None

    @property
    def _does_something(self) -> bool:
        return any(getattr(self, action) not in {None, False} for action in _ACTIONS)


def is_small(value: int) -> bool:
    """Whether a number fits 32 bits, with a sign or without."""
    return -(2**31) <= value < 2**32


def _words(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _plain(key: str, value: Any) -> Any:
    """As the dataclass has it."""
    if not isinstance(value, list):
        return _number(key, value)
    if not value:  # which would not be told from none at all: a policy for every file
        raise ValueError(f"{key} of a policy cannot be empty")
    for each in value:
        if not isinstance(each, str):
            raise ValueError(f"{key} of a policy cannot hold {each!r}")  # noqa: TRY004
    return tuple(value)


def _number(key: str, value: Any) -> Any:
    """An errno's or a signal's number where its name is given; else the value."""
    if key not in _NUMBERS or not isinstance(value, str):
        return value
    number = _NUMBERS[key](value)
    if not isinstance(number, int):
        raise ValueError(f"{value!r} is no {'errno' if key == 'override' else key}")  # noqa: TRY004
    return number


def _signal_name(number: int) -> str | int:
    return signal.Signals(number).name if number in _SIGNALS.values() else number


#: Without any of these a policy would do nothing.
_ACTIONS: Final = ("override", "signal", "post", "monitor")
_SIGNALS: Final = {each.name: each.value for each in signal.Signals}
_NUMBERS: Final[dict[str, Callable[[str], object]]] = {
    "override": lambda name: getattr(errno, name, None),
    "signal": _SIGNALS.get,
}
_NAMES: Final[dict[str, Callable[[int], str | int]]] = {
    "override": lambda number: errno.errorcode.get(number, number),
    "signal": _signal_name,
}
#: The least and the greatest of each number in a policy.
RANGES: Final = {
    "override": (1, 4095),
    "signal": (1, 64),
    "pid": (1, _PIDS),
    "uid": (0, _UIDS),
    "path_argument": (0, REGISTERS - 1),
    "argument": (0, REGISTERS - 1),
    "value": (-(2**63), 2**64 - 1),
    "value_bits": (32, 64),
}
#: The keys of a policy in JSON, and the types each may have; NoneType means it may be absent.
_FIELDS: Final[dict[str, tuple[type, ...]]] = {
    "name": (str,),
    "hook": (str,),
    "path": (str, type(None)),
    "prefix": (str, type(None)),
    "path_argument": (int, type(None)),
    "argument": (int, type(None)),
    "value": (int, type(None)),
    "value_bits": (int, type(None)),
    "binary": (str, type(None)),
    "pid": (int, type(None)),
    "uid": (int, type(None)),
    "override": (int, str, type(None)),
    "by": (str, type(None)),
    "signal": (int, str, type(None)),
    "post": (bool, type(None)),
    "monitor": (bool, type(None)),
    "hash": (bool, type(None)),
    "digest_in": (list, type(None)),
    "digest_not_in": (list, type(None)),
}
