# SPDX-License-Identifier: Apache-2.0
"""What the documents say of mutants is what their headers say, and these leave no kernel out."""

from __future__ import annotations

from pathlib import Path

from hookproof.case import cases
from hookproof.mutants import docs, patch
from hookproof.mutants.session import read_scenarios
from vm import catalog
from vm.default import default_catalog

ROOT = Path(__file__).resolve().parent.parent
#: What all kernels of the list have.
EVERYWHERE = {"fmod_ret", "userfaultfd"}


def test_the_tables_are_current() -> None:
    made = docs.texts(ROOT)
    assert [path.name for path in made] == ["README.md", "mutants.md"]
    for path, text in made.items():
        assert text.count("<!-- generated: mutants") == 1
        hint = "run python -m hookproof.mutants.docs"
        assert path.read_text(encoding="utf-8") == text, hint


def test_each_kernel_alone_has_a_mutant_for_each_scenario_that_runs_there() -> None:
    """Or `hookproof mutants --kernel` could not succeed; of what some kernels lack probes know."""
    mutants = patch.read_all(ROOT / "mutants")
    lacking = [
        f"{name} on {kernel.name}"
        for name, scenario in read_scenarios(ROOT / "scenarios").items()
        if not scenario.no_mutant and set(scenario.needs) <= EVERYWHERE
        for kernel in catalog.read(default_catalog())
        if any(cases(scenario, [kernel]))
        if not any(name in each.killed_by and each.shows_on(kernel.name) for each in mutants)
    ]
    assert lacking == []
