# SPDX-License-Identifier: Apache-2.0
"""Steps that need no machine: they do what they say, or say that they did not."""

from __future__ import annotations

from pathlib import Path

import pytest

from hookproof.guest import steps


@pytest.mark.parametrize(
    ("text", "size", "content"),
    [
        ("ab", None, b"ab"),
        ("ab", 5, b"ababa"),
        ("ab", 0, b""),
        ("", None, b""),
        ("", 3, b"\0\0\0"),
    ],
)
def test_a_file_has_the_size_that_is_said(
    tmp_path: Path, text: str, size: int | None, content: bytes
) -> None:
    path = tmp_path / "x"
    more = {} if size is None else {"size": size}
    assert steps.act("write", {"path": str(path), "text": text, "mode": 0o644, **more}) == "ok"
    assert path.read_bytes() == content


def test_what_is_not_attached_is_not_detached() -> None:
    assert steps.act("detach", {"function": "security_path_mkdri"}) == "ENOENT"
