# SPDX-License-Identifier: Apache-2.0
"""What is generated from the language's tables is what lies in the repository."""

import json
from pathlib import Path

import pytest

from hookproof.decode import read_scenario
from hookproof.schema import BLOCKS, REFERENCE, ROOT, SCHEMA, reference_text, schema_text
from hookproof.verbs import VERBS

RENEW = "run: python -m hookproof.schema"
SCENARIOS = sorted((ROOT / "scenarios").rglob("*.yaml"))


def test_schema_is_up_to_date() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), RENEW


def test_reference_is_up_to_date() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    assert text == reference_text(text), RENEW
    assert all(f"<!-- generated: {name} -->" in text for name in BLOCKS)


def test_schema_has_a_step_for_each_verb_and_no_loose_reference() -> None:
    schema = json.loads(schema_text())
    steps = schema["$defs"]["step"]["anyOf"]
    assert {step["required"][0] for step in steps} == set(VERBS)
    named = {part.split('"')[0] for part in schema_text().split("#/$defs/")[1:]}
    assert named == set(schema["$defs"])


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario_of_the_repository_reads_and_points_to_its_schema(path: Path) -> None:
    scenario = read_scenario(path)
    assert scenario.origin
    licence, schema = path.read_text(encoding="utf-8").splitlines()[:2]
    assert licence == "# SPDX-License-Identifier: Apache-2.0"
    named = schema.partition("$schema=")[2]
    assert (path.parent / named).resolve() == SCHEMA


def test_examples_in_the_reference_read(tmp_path: Path) -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    block = text.split("\n\n    # SPDX", 1)[1].split("\n\nThe second line", 1)[0]
    path = tmp_path / "example.yaml"
    path.write_text("# SPDX" + block.replace("\n    ", "\n"))
    assert read_scenario(path).params["n"][-1] == 64
