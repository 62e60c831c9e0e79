# SPDX-License-Identifier: Apache-2.0
"""Steps that need no machine: they do what they say, or say that they did not."""

from __future__ import annotations

from pathlib import Path

import pytest

from hookproof.guest import steps
from refagent.libbpf import btf, census


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


def test_a_text_keeps_its_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"a\r\nb\rc\n\xff")
    assert steps.act("read", {"path": str(path)}) == {"text": "a\r\nb\rc\n\ufffd"}


def test_a_function_that_is_not_there_has_no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    class Types:
        def function(self, name: str) -> object:
            return name if name == "with_types" else None

    monkeypatch.setattr(census, "links", lambda: ())
    monkeypatch.setattr(btf, "vmlinux", Types)
    assert steps.act("links", {"function": "with_typse"}) == "ENOENT"
    # The second is no function with a type, and in every kernel's list of symbols.
    for function in ("with_types", "_text"):
        links = steps.act("links", {"function": function})
        assert set(links.values()) == {0}, function
