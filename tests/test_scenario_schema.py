# SPDX-License-Identifier: Apache-2.0
"""What is generated from the language's tables is what lies in the repository."""

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from hookproof.decode import read_scenario
from hookproof.schema import BLOCKS, REFERENCE, ROOT, SCHEMA, reference_text, schema_text
from hookproof.verbs import VERBS
from vm.errors import UsageProblem

RENEW = "run: python -m hookproof.schema"
SCENARIOS = sorted((ROOT / "scenarios").rglob("*.yaml"))
BUGS = sorted((ROOT / "kernelbugs").glob("*.yaml"))


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


@pytest.mark.parametrize("path", [*SCENARIOS, *BUGS], ids=lambda path: path.stem)
def test_an_editor_finds_nothing_wrong_with_it(path: Path) -> None:
    # Editors read YAML with its types, where the language has texts.
    validator = Draft202012Validator(json.loads(schema_text()))
    wrong = validator.iter_errors(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert [each.message for each in wrong] == []


@pytest.mark.parametrize(
    "line",
    [
        "only: [6.1, true]",
        "boot: [1]",
        "about: 5",
        "policies: {a: {hook: b, post: yes, override: EPREM}}",
        "steps: [{symlinkat: /x, bits: 33}]",
        "steps: [{mkdir: x}]",
        "steps: [{mkdir: /x, moed: 1}]",
    ],
)
def test_an_editor_finds_what_the_language_refuses(tmp_path: Path, line: str) -> None:
    text = "about: A.\nsteps:\n  - mkdir: /x\n"
    key = line.partition(":")[0]
    kept = "".join(each for each in text.splitlines(keepends=True) if not each.startswith(key))
    kept = kept.removesuffix("  - mkdir: /x\n") if key == "steps" else kept
    path = tmp_path / "it.yaml"
    path.write_text(f"{line}\n{kept}", encoding="utf-8")
    validator = Draft202012Validator(json.loads(schema_text()))
    assert validator.is_valid(yaml.safe_load(path.read_text())) == _reads(path)


def _reads(path: Path) -> bool:
    try:
        read_scenario(path)
    except UsageProblem:
        return False
    return True


def test_examples_in_the_reference_read(tmp_path: Path) -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    block = text.split("\n\n    # SPDX", 1)[1].split("\n\nThe second line", 1)[0]
    path = tmp_path / "example.yaml"
    path.write_text("# SPDX" + block.replace("\n    ", "\n"))
    assert read_scenario(path).params["n"][-1] == 64
