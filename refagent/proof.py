# SPDX-License-Identifier: Apache-2.0
"""That a chain's programs run, in their order, and give the right digest: seen, not assumed."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final

from refagent import canary, layout, selftest
from refagent.digests import Digest
from refagent.epochs import Epochs
from refagent.errors import AgentError, Refused
from refagent.policy import LSM
from refagent.rules import Rule, Rules

#: A chain's programs, in the order in which they have to run.
ORDER: Final = ("filter", "ima", "send")
#: What each has a frame remember; so this is said of a call that passed them in that order.
_STEPS: Final = 1 << 4 | 2 << 2 | 3
#: The policy and the place of the agent's own calls.
_NOBODY: Final = 2**32 - 1
_PLACE: Final = layout.POLICIES - 1
#: Their rule: what is denied goes no further, so that no other program sees an execution.
_RULE: Final = Rule(_NOBODY, _PLACE, error=errno.EPERM, hash=True)


def digest(function: str, path: Path, rules: Rules, epochs: Epochs) -> Digest | int:
    """Makes a call, and looks which programs it met.

    Args:
        function: `lsm/` and the hook's name.
        path: a file of the agent's own, for which nobody else asks.
        rules: the chain's.
        epochs: likewise.

    Returns:
        What IMA says of the file, or a negative errno.

    Raises:
        Refused: the call did not meet all of them, or not in this order.
        AgentError: the digest is wrong.
        BpfError: the kernel failed.
    """
    before = epochs.told()[0]
    with rules.only(layout.path_text(str(path)), _RULE):
        selftest.call(function.removeprefix(LSM), path)
    calls, steps, algorithm, raw = epochs.told()
    if calls == before:
        raise Refused(
            f"{function}: a call of the agent's own did not come through the chain"
            f"{canary.why_silent()}"
        )
    if steps != _STEPS:
        raise Refused(f"{function}: its programs do not run in the order {', '.join(ORDER)}")
    if algorithm < 0:
        return int(algorithm)
    found = Digest.of_kernel(algorithm, raw)
    name, right = selftest.DIGESTS.get(algorithm, ("", ""))
    if not raw.hex().startswith(right):
        raise AgentError(f"{function}: IMA gives {found} where {name}:{right} is right")
    return found
