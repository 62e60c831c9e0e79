# SPDX-License-Identifier: Apache-2.0
"""Each program has the constants it was given, in a map that nobody can change any more."""

from __future__ import annotations

import errno

import pytest

from refagent.agent import Agent
from refagent.errors import BpfError
from refagent.hooks import PathKind
from refagent.policy import Policy
from tests.inside.things import OVERRIDE, SENSOR, constants, map_named, program_on

#: Where a path is that no sensor could find with another function's constants.
PLACES = {
    "security_path_mkdir": (PathKind.PATH, 0),
    "security_path_link": (PathKind.PATH, 1),
    "security_file_open": (PathKind.FILE, 0),
}


def test_sensor_and_override_of_a_function_share_an_id_of_their_own() -> None:
    with Agent() as agent:
        for function in PLACES:
            agent.load(Policy(function, function, path="/nowhere", override=errno.EPERM))
        sensors = {each: constants(program_on(each, SENSOR)) for each in PLACES}
        overrides = {each: constants(program_on(each, OVERRIDE)) for each in PLACES}
    for function, (kind, argument) in PLACES.items():
        number = overrides[function]["override_id"]
        assert number > 0
        assert sensors[function] == {
            "override_id": number,
            "path_kind": kind,
            "path_argument": argument,
            "system_call": 0,
            "ia32": 0,
            "by_kprobe": 0,
        }
    assert len({each["override_id"] for each in overrides.values()}) == len(PLACES)


def test_a_system_calls_sensor_knows_that_it_is_on_one() -> None:
    with Agent() as agent:
        agent.load(Policy("a", "__x64_sys_symlink", path="/nowhere", monitor=True))
        found = constants(program_on("__x64_sys_symlink", SENSOR))
    assert (found["system_call"], found["path_kind"]) == (1, PathKind.STRING)
    assert found["path_argument"] == 1  # the one that is made


@pytest.mark.parametrize("kind", [SENSOR, OVERRIDE])
def test_constants_are_frozen(kind: str) -> None:
    with Agent() as agent:
        agent.load(Policy("a", "security_path_mkdir", path="/nowhere", override=errno.EPERM))
        program = program_on("security_path_mkdir", kind)
        with (
            map_named(".rodata", program) as rodata,
            pytest.raises(BpfError, match="EPERM"),
        ):
            rodata.set(bytes(4), bytes(rodata.value_size))


def test_an_id_is_never_used_again() -> None:
    with Agent() as agent:
        numbers = []
        for _ in range(3):
            agent.load(Policy("a", "security_path_mkdir", path="/nowhere", override=errno.EPERM))
            numbers.append(constants(program_on("security_path_mkdir", SENSOR))["override_id"])
            agent.unload("a")
    assert len(set(numbers)) == 3
