# SPDX-License-Identifier: Apache-2.0
"""What the documents say of mutants is what their headers say."""

from __future__ import annotations

from pathlib import Path

from hookproof.mutants import docs

ROOT = Path(__file__).resolve().parent.parent


def test_the_tables_are_current() -> None:
    made = docs.texts(ROOT)
    assert [path.name for path in made] == ["README.md", "mutants.md"]
    for path, text in made.items():
        assert text.count("<!-- generated: mutants") == 1
        hint = "run python -m hookproof.mutants.docs"
        assert path.read_text(encoding="utf-8") == text, hint
