# SPDX-License-Identifier: Apache-2.0
"""A policy that an agent has, with what the kernel is told of it."""

from __future__ import annotations

from dataclasses import dataclass

from refagent import hooks, layout
from refagent.digests import Digest
from refagent.errors import Refused
from refagent.policy import Policy
from refagent.rules import Rule, key_of


@dataclass(frozen=True)
class Wanted:
    """A policy that makes sense on this kernel.

    Attributes:
        policy: as it was asked for.
        hook: its function.
        path_argument: the argument that its path is about, or None.
        key: where its rule goes.
        value: of the argument, and the mask of its bits.
        binary: the key of its binary, or None.
    """

    policy: Policy
    hook: hooks.Hook
    path_argument: int | None
    key: bytes
    value: tuple[int, int]
    binary: bytes | None

    @classmethod
    def of(cls, policy: Policy) -> Wanted:
        """Looks at a policy and at the running kernel.

        Raises:
            Refused: it does not make sense, and why.
            BpfError: this kernel has no BTF.
        """
        try:
            key = key_of(policy.checked())
        except ValueError as mistake:
            raise Refused(str(mistake)) from None
        binary = None if policy.binary is None else layout.path_key(policy.binary)
        hook = hooks.find(policy.hook)
        if policy.override is not None:
            hook.check_override(policy.by)
        if policy.needs_digest:
            hook.check_digest()
        return cls(policy, hook, hook.path_argument(policy), key, hook.masked(policy), binary)

    def rule(self, number: int, place: int, binary: int | None) -> Rule:
        """What the sensor is told.

        Args:
            number: the policy's id.
            place: where its calls are counted.
            binary: the id of its binary, or None.
        """
        value, mask = self.value
        return Rule(
            number,
            place,
            error=self.policy.override or 0,
            signal=self.policy.signal or 0,
            post=self.policy.post,
            argument=self.policy.argument or 0,
            value=value,
            value_mask=mask,
            pid=self.policy.pid,
            uid=self.policy.uid,
            binary=binary,
            monitor=self.policy.monitor,
            hash=self.policy.hash,
            digests=tuple(Digest.parse(each) for each in self.policy.digests),
            listed=bool(self.policy.digest_in),
        )


@dataclass
class Loaded:
    """A policy with its rule, which is in the kernel or, while it is disabled, not."""

    wanted: Wanted
    rule: Rule
    enabled: bool = False
