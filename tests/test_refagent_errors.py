# SPDX-License-Identifier: Apache-2.0
"""Errors carry the one line that tells most."""

from __future__ import annotations

import errno

from refagent.errors import BpfError, telling_line

LOG = """\
func#0 @0
0: R1=ctx(off=0,imm=0) R10=fp0
0: (85) call bpf_override_return#58
unknown func bpf_override_return#58
processed 1 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
verification time 61 usec
stack depth 0

"""


def test_the_telling_line_comes_before_the_statistics() -> None:
    assert telling_line(LOG) == "unknown func bpf_override_return#58"


EXPLAINED = """\
13: (85) call bpf_override_return#58
program of this type cannot use helper bpf_override_return#58

Verification failed: Policy: Operation is not allowed

Suggestion:
  Use a helper allowed for this program type, or move the logic to a compatible program type.

processed 12 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""


def test_the_telling_line_comes_before_the_explanation_of_7_3() -> None:
    reason = "program of this type cannot use helper bpf_override_return#58"
    assert telling_line(EXPLAINED) == reason


def test_a_log_of_statistics_tells_nothing() -> None:
    assert telling_line("processed 2 insns (limit 1000000)\n\n") == ""


def test_the_verifier_speaks_before_libbpf() -> None:
    failure = BpfError("load object probe", errno.EINVAL, "failed to load", LOG)
    assert str(failure) == "load object probe: EINVAL: unknown func bpf_override_return#58"
    assert str(BpfError("open", 4003, "not an ELF")) == "open: 4003: not an ELF"
