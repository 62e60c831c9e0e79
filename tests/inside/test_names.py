# SPDX-License-Identifier: Apache-2.0
"""What others see of the agent: names that lead to it, to the function and to the policies."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from refagent.agent import Agent
from refagent.errors import AgentError, Refused
from refagent.libbpf import census, ids, pins
from refagent.libbpf._libbpf import lib
from refagent.libbpf.maps import Map, Shape
from refagent.policy import Policy
from tests.inside.things import OVERRIDE, SENSOR, program_on

MKDIR, RMDIR = "security_path_mkdir", "security_path_rmdir"
SHARED = {"override_tasks", "policy_counts", "binaries", "events", "state"}


def deny(name: str, hook: str = MKDIR) -> Policy:
    return Policy(name, hook, path="/nowhere", override=errno.EPERM)


def served(base: Path) -> dict[int, set[str]]:
    """Program → the policies that are pinned for it."""
    found = defaultdict(set)
    folder = base / "__policy__"
    for each in folder.iterdir() if folder.exists() else ():
        found[number_of(each)].add(each.name)
    return found


def number_of(pin: Path) -> int:
    """The id of a program by its pin."""
    fd = pins.opened(pin)
    try:
        return ids.program_id(fd)
    finally:
        os.close(fd)


def sensor_of(base: Path, function: str) -> int:
    return number_of(base / "__sensor__" / function / "prog")


def test_programs_and_maps_are_named_by_agent_role_and_function() -> None:
    before = {each.id for each in census.programs()}
    with Agent() as agent:
        agent.load(deny("a"))
        agent.load(Policy("b", "__x64_sys_symlink", monitor=True))
        agent.load(Policy("c", "security_inode_need_killpriv", uid=54321, post=True))
        programs = [each for each in census.programs() if each.id not in before]
        maps = {each.id: each.name for each in census.maps()}
        assert sorted(each.name for each in programs) == [
            "hpo_path_mkdir",
            "hps_inode_need",
            "hps_path_mkdir",
            "hps_sys_symlin",
        ]
        for each in programs:
            end = each.name[3:]
            theirs = {maps[number] for number in each.maps} - SHARED
            wanted = {"hpk"} if each.name.startswith("hpo") else {"hpr", "hpb", "hpc", "hpw", "hpk"}
            assert theirs == {role + end for role in wanted}
        assert "hpt_path_mkdir" in maps.values()
        assert program_on(MKDIR, SENSOR).name == "hps_path_mkdir"
        assert program_on(MKDIR, OVERRIDE).name == "hpo_path_mkdir"


def test_enabled_policies_are_pinned_with_their_sensor(base: Path) -> None:
    with Agent(base) as agent:
        for policy in (deny("a"), deny("b"), deny("c", RMDIR)):
            agent.load(policy)
        mkdir, rmdir = sensor_of(base, MKDIR), sensor_of(base, RMDIR)
        assert served(base) == {mkdir: {"a", "b"}, rmdir: {"c"}}
        agent.disable("a")
        agent.disable("c")  # and with it the program goes
        assert served(base) == {mkdir: {"b"}}
        agent.enable("a")
        agent.unload("b")
        assert served(base) == {mkdir: {"a"}}
        agent.leave()
        assert served(base) == {mkdir: {"a"}}
    with Agent(base) as agent:
        assert served(base) == {mkdir: {"a"}}
        agent.unload("a")
        assert not (base / "__policy__").exists()
        agent.enable("c")
        assert served(base) == {sensor_of(base, RMDIR): {"c"}}


def test_a_load_that_fails_leaves_no_pin(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise Refused("no")

    with Agent(base) as agent:
        agent.load(deny("a"))
        with monkeypatch.context() as patch:
            patch.setattr("refagent.state.State.add_policy", refuse)
            with pytest.raises(Refused, match=r"^no$"):
                agent.load(deny("b"))
        assert served(base) == {sensor_of(base, MKDIR): {"a"}}


@pytest.mark.parametrize(
    ("name", "pin"),
    [
        ("net.block/all", "net%2Eblock%2Fall"),
        ("100% ä", "100%25%20%C3%A4"),
        ("..", "%2E%2E"),
        ("", "%"),
        ("a\0\ud800", "a%00%ED%A0%80"),
        ("x" * 255, "x" * 255),
    ],
)
def test_any_name_can_be_pinned(base: Path, name: str, pin: str) -> None:
    with Agent(base) as agent:
        agent.load(deny(name))
        assert served(base) == {sensor_of(base, MKDIR): {pin}}
        agent.leave()
    with Agent(base) as agent:
        assert agent.status().policies == (name,)
        agent.unload(name)
        assert served(base) == {}


def test_a_name_that_is_too_long_is_refused(base: Path) -> None:
    with Agent(base) as agent:
        with pytest.raises(Refused, match=r"policy x{32}… takes 256 bytes .* shorter one"):
            agent.load(deny("x" * 256))
        assert not any(base.iterdir())
        agent.load(deny("x"))


@pytest.mark.parametrize("hook", ["security_path_mkdir", "security_path_mknod"])
def test_a_policy_against_making_pins_is_pinned_itself(base: Path, hook: str) -> None:
    with Agent(base) as agent:
        agent.load(Policy("all", hook, override=errno.EPERM))
        assert served(base) == {sensor_of(base, hook): {"all"}}
        agent.disable("all")
        agent.enable("all")
        agent.leave()
    with Agent(base) as agent:
        agent.unload("all")


def test_a_pin_that_cannot_be_removed_is_said(base: Path) -> None:
    with Agent(base) as agent:
        agent.load(deny("a"))
        agent.load(deny("b"))
        agent.load(Policy("all", "security_path_unlink", override=errno.EPERM))
        with pytest.raises(AgentError, match="__policy__/a cannot be removed: Operation not perm"):
            agent.unload("a")
        assert [each.name for each in agent.policies()] == ["all", "b"]
        agent.unload("all")
        agent.load(deny("a"))


def too_many(base: Path) -> None:
    """As of a load that was half done, or of an unload."""
    fd = pins.opened(base / "__sensor__" / RMDIR / "prog")
    try:
        pins.pin(fd, base / "__policy__/half")
    finally:
        os.close(fd)


def of_another(base: Path) -> None:
    (base / "__policy__/a").unlink()
    (base / "__policy__/c").rename(base / "__policy__/a")


def none_at_all(base: Path) -> None:
    for each in (base / "__policy__").iterdir():
        each.unlink()
    (base / "__policy__").rmdir()


@pytest.mark.parametrize("change", [too_many, of_another, none_at_all])
def test_the_next_agent_sets_the_pins_right(base: Path, change: Callable[[Path], None]) -> None:
    agent = Agent(base)
    for policy in (deny("a"), deny("off"), deny("c", RMDIR)):
        agent.load(policy)
    agent.disable("off")
    agent.leave()
    change(base)
    with Agent(base):
        assert served(base) == {sensor_of(base, MKDIR): {"a"}, sensor_of(base, RMDIR): {"c"}}


def test_what_is_no_sensors_pin_is_refused_and_stays(base: Path) -> None:
    agent = Agent(base)
    agent.load(deny("a"))
    agent.leave()
    foreign = base / "__policy__/b"

    def refused() -> None:
        with pytest.raises(Refused, match=f"{foreign} is none of an agent's pins"):
            Agent(base)
        assert foreign.exists()

    foreign.mkdir()
    refused()
    foreign.rmdir()
    with Map.create("hps_foreign", Shape(lib.BPF_MAP_TYPE_HASH, 8, 4, 1024)) as other:
        pins.pin(other.fd, foreign)
    refused()
    foreign.unlink()
    (base / "__override__/fmod_ret" / MKDIR / "prog").rename(foreign)
    refused()
    foreign.rename(base / "__override__/fmod_ret" / MKDIR / "prog")
    with Agent(base):
        pass


def bpftool(what: str) -> list[dict[str, Any]]:
    said = subprocess.run(["bpftool", "-j", "-f", what, "show"], stdout=subprocess.PIPE, check=True)
    found: list[dict[str, Any]] = json.loads(said.stdout)
    return found


@pytest.mark.skipif(shutil.which("bpftool") is None, reason="there is no bpftool here")
def test_bpftool_leads_to_agent_function_and_policies(base: Path) -> None:
    with Agent(base) as agent:
        agent.load(deny("a"))
        agent.load(deny("b"))
        programs = {each["name"]: each for each in bpftool("prog") if "name" in each}
        maps = {each["id"]: each for each in bpftool("map")}
        links = bpftool("link")
    sensor, override = programs["hps_path_mkdir"], programs["hpo_path_mkdir"]
    folder = base / "__sensor__" / MKDIR
    assert set(sensor["pinned"]) == {
        f"{base}/__policy__/a",
        f"{base}/__policy__/b",
        f"{folder}/prog",
    }
    assert override["pinned"] == [f"{base}/__override__/fmod_ret/{MKDIR}/prog"]
    (rules,) = (maps[each] for each in sensor["map_ids"] if "policies" in str(maps[each]["pinned"]))
    assert (rules["name"], rules["pinned"]) == ("hpr_path_mkdir", [f"{folder}/policies"])
    (link,) = (each for each in links if each["prog_id"] == sensor["id"])
    assert link["pinned"] == [f"{folder}/link"]
