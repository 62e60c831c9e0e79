# SPDX-License-Identifier: Apache-2.0
"""What an executor replies when a request fails; on real machines wherever there is one."""

from __future__ import annotations

import json

import pytest

from hookproof.guest import executor


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (TimeoutError("thread 7 did not end"), {"hang": "thread 7 did not end"}),
        (ValueError("no"), {"error": "ValueError: no"}),
    ],
)
def test_what_does_not_come_back_is_no_fault_of_the_harness(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, said: dict[str, str]
) -> None:
    def handle(_self: executor.Executor, _request: object) -> dict[str, object]:
        raise raised

    monkeypatch.setattr(executor, "KernelLog", list)
    monkeypatch.setattr(executor.Executor, "handle", handle)
    replies: list[bytes] = []
    executor.serve([b'{"id": 1, "op": "step"}\n'], replies.append)
    assert json.loads(replies[0]) == {"id": 1, **said}
