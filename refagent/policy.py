# SPDX-License-Identifier: Apache-2.0
"""A policy, in words that belong to no agent: which hook, which calls, what to do."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Policy:
    """One rule on one kernel function.

    Attributes:
        name: unique within an agent.
        hook: the kernel function, such as `security_path_mkdir`.
        path: matches a call whose path argument (a `const struct path *`, for
            `security_path_mkdir` the directory in which something is made) is
            exactly this absolute path. None matches every call.
        override: the errno the caller gets instead, a positive number in 1..4095,
            or None.
    """

    name: str
    hook: str
    path: str | None = None
    override: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The policy as JSON values; the errno by name where it has one."""
        out: dict[str, Any] = {"name": self.name, "hook": self.hook}
        if self.path is not None:
            out["path"] = self.path
        if self.override is not None:
            out["override"] = errno.errorcode.get(self.override, self.override)
        return out

    @classmethod
    def from_json(cls, raw: object) -> Policy:
        """The inverse of `to_json`.

        Raises:
            ValueError: an unknown key, a missing one, a wrong type, or an errno out of range.
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
        override = raw.get("override")
        if isinstance(override, str):
            number = getattr(errno, override, None)
            if not isinstance(number, int):
                raise ValueError(f"{override!r} is no errno")  # noqa: TRY004
            override = number
        if override is not None and not 1 <= override <= 4095:
            raise ValueError(f"override {override} is outside 1..4095")
        return cls(raw["name"], raw["hook"], raw.get("path"), override)


#: The keys of a policy in JSON, and the types each may have; NoneType means it may be absent.
_FIELDS: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "hook": (str,),
    "path": (str, type(None)),
    "override": (int, str, type(None)),
}
