# SPDX-License-Identifier: Apache-2.0
"""Medians, ratios, and the benchmark's table as people see it."""

from __future__ import annotations

import json
from textwrap import dedent

import pytest

from hookproof.bench import agent, matrix, table
from hookproof.bench.boots import Boots, KernelBoots
from hookproof.bench.chain import Chain
from hookproof.bench.matrix import Matrix, Run
from hookproof.bench.memory import Held, Memory
from hookproof.bench.ours import Ran, Way
from hookproof.bench.peers import Lost
from hookproof.bench.restores import Holding, Restores
from hookproof.bench.scenarios import MANY, Scenarios
from hookproof.bench.spread import Cost, Costs, Spread
from hookproof.bench.table import Row
from vm.errors import HostProblem


def flat(value: float) -> Spread:
    return Spread(value, value, value)


def costs(wall: float, cpu: float = 1.0) -> Costs:
    return Costs(flat(wall), flat(cpu))


def test_a_spread_has_the_median_and_its_extremes() -> None:
    assert Spread.of([9.0, 1.0, 3.0, 2.0, 4.0]) == Spread(3.0, 1.0, 9.0)
    assert Spread.of([2.0]) == Spread(2.0, 2.0, 2.0)
    assert Spread(3.0, 1.0, 5.0).times(2) == Spread(6.0, 2.0, 10.0)
    assert Spread(3.0, 1.0, 5.0).to(Spread(6.0, 6.0, 6.0)) == 0.5


def test_costs_keep_wall_and_processor_apart() -> None:
    found = Costs.of([Cost(1, 10), Cost(3, 30), Cost(2, 20)])
    assert (found.wall, found.cpu) == (Spread(2, 1, 3), Spread(20, 10, 30))
    assert found.times(50).cpu.median == 1000


def test_the_table_begins_with_ratios_and_ends_with_what_was_lost() -> None:
    rows = [
        Row("boot", "5.00 s", "vng 10.0 s", 0.25),
        Row("restore", "0.080 s", "vng 10.0 s", 0.008),
        Row("disk", "3 MiB"),
    ]
    lost = [Lost("vng", "5.10", 255, "x"), Lost("vng", "5.10", 255, "y"), Lost("vng", "7.3", 1, "")]
    assert table.render(rows, lost) == dedent("""\
        ratio  what     ours     beside
        0.25   boot     5.00 s   vng 10.0 s
        1/125  restore  0.080 s  vng 10.0 s
               disk     3 MiB

        Rounds repeated because the peer ended before its script: vng on 5.10: 2, vng on 7.3: 1.""")
    assert "Rounds" not in table.render(rows, [])


@pytest.mark.parametrize(
    ("spread", "text"),
    [
        (Spread(0.08123, 0.0799, 0.1), "0.081 s (0.080-0.100)"),
        (Spread(5.237, 5.1, 6), "5.24 s (5.10-6.00)"),
        (Spread(58.68, 50, 60), "58.7 s (50.0-60.0)"),
    ],
)
def test_seconds_have_the_digits_that_tell_something(spread: Spread, text: str) -> None:
    assert table.seconds(spread) == text


def test_boots_are_shown_beside_the_faster_peer() -> None:
    found = Boots(
        (
            KernelBoots(
                *("6.12", {}, flat(12), flat(10), flat(8)),
                *(flat(0.2), flat(0.08), flat(5), flat(6), flat(0.1)),
            ),
        )
    )
    assert [(row.ratio, row.beside) for row in found.rows()] == [
        (0.01, "vng 10.0 s (10.0-10.0)"),
        (0.5, "vng 10.0 s (10.0-10.0)"),
        (0.8, "vng 10.0 s (10.0-10.0)"),
        (0.025, "one more boot 8.00 s (8.00-8.00)"),
        (0.01, "one more boot 8.00 s (8.00-8.00)"),
    ]
    (plain,) = json.loads(json.dumps(found.to_json()))
    assert list(plain)[:2] == ["kernel", "ratios"]
    assert plain["ratios"]["cold_to_virtme_run"] == pytest.approx(5 / 12)
    assert plain["restore"] == {"median": 0.1, "least": 0.1, "most": 0.1}


def test_a_kernel_that_peers_cannot_boot_has_numbers_without_ratios() -> None:
    found = Boots(
        (
            KernelBoots(
                *("7.0", {"vng": "no 9p"}, *(None,) * 5),
                *(flat(5), flat(6), flat(0.1)),
            ),
        )
    )
    assert [row.ratio for row in found.rows()] == [None, None]
    (plain,) = found.to_json()
    assert plain["ratios"] == {}
    assert plain["vng"] is None


def test_scenarios_are_compared_with_a_vng_each_and_with_one_for_all() -> None:
    found = Scenarios(
        kernel="6.12",
        scenario="x.yaml",
        ways=((Way(), costs(20)), (Way(isolate="none"), costs(10))),
        one_more=flat(0.3),
        vng_true=costs(12),
        vng_one=costs(16),
        vng_all=costs(40),
    )
    assert [row.ratio for row in found.rows()] == [0.3 / 12, 20 / (16 * MANY), 10 / 40, 20 / 40]
    plain = json.loads(json.dumps(found.to_json()))
    assert plain["vng_each"]["wall"]["median"] == 16 * MANY
    assert plain["vng_each"]["measured"] == 1
    assert plain["ours"][1]["isolate"] == "none"


def test_the_matrix_says_what_more_machines_gain() -> None:
    whole = (Run(10, 11, 1, 200, 5, costs(100)), Run(10, 11, 2, 200, 5, costs(60)))
    found = Matrix(("6.12", "7.3"), "6.12", whole)
    assert found.rows()[1].ratio == 0.6
    assert "205 cases, 2 at a time" in found.rows()[1].what
    plain = json.loads(json.dumps(found.to_json()))
    assert plain["ratios"] == {"parallel": 0.6}
    assert plain["whole"][1]["wall"]["median"] == 60
    assert plain["by_kernels"] == []


def test_runs_that_differ_are_no_measure() -> None:
    with pytest.raises(HostProblem, match="different results"):
        matrix._same([Ran(Cost(1, 1), 10, 0), Ran(Cost(1, 1), 9, 1)])
    assert matrix._same([Ran(Cost(1, 1), 10, 0), Ran(Cost(2, 1), 10, 0)]) == (10, 0)


def test_memory_is_compared_with_vngs() -> None:
    def held(name: str, rss: float) -> Held:
        return Held(name, flat(rss), flat(rss - 10), flat(rss - 20), flat(40))

    found = Memory("6.12", (held("snapshot", 100), held("vng", 400)), {"images": 1700.0})
    assert found.rows()[0].ratio == 0.25
    assert found.rows()[0].beside == "vng 400 MiB (400-400), private 390"
    assert found.to_json()["ratios"] == {"snapshot_to_vng": 0.25}
    assert found.to_json()["disk"] == {"images": 1700.0}


def test_restores_say_what_grew() -> None:
    before = Holding(memory=50.0, descriptors=9, threads=2, processes=0, disk=700.0)
    after = Holding(memory=50.5, descriptors=9, threads=3, processes=0, disk=700.0)
    grown = Restores("6.12", 1000, 2, Spread(0.2, 0.1, 0.9), before, after)
    assert grown.rows() == [
        Row(
            "6.12: 1000 restores, 2 at a time",
            "0.200 s (0.100-0.900)",
            "growth: memory +0.5, threads +1",
        )
    ]
    assert grown.to_json()["growth"]["threads"] == 1
    (row,) = Restores("6.12", 1000, 2, flat(0.2), before, before).rows()
    assert row.beside == "growth: none"


def test_the_agents_costs_are_compared_with_one_policy() -> None:
    def sized(policies: int, factor: float) -> agent.Sized:
        raw = {name: [factor, factor, 9 * factor] for name in agent.RATIOS}
        memory = 1000 + 10 * (policies - 1)
        return agent.Sized.of(
            {**raw, "policies": policies, "first": [1], "memory": memory, "memory_of_first": 1000}
        )

    found = agent.Costs("6.12", (sized(1, 2.0), sized(10, 2.0), sized(1000, 3.0)))
    plain = json.loads(json.dumps(found.to_json()))
    assert plain["ratios"]["denied_override"] == {"10": 1.0, "1000": 1.5}
    assert plain["ratios"].keys() == agent.RATIOS.keys()
    assert [each["memory_of_one_more"] for each in plain["sizes"]] == [0, 10, 10]
    rows = {row.what: row for row in found.rows()}
    row = rows["6.12: override program, a denied call, 1000 policies"]
    assert (row.ratio, row.ours, row.beside) == (1.5, "3 ns (3-27)", "1 policy 2 ns (2-18)")
    assert (
        rows["6.12: load of one more policy, 10 policies"].ours == "2000.00 ms (2000.00-18000.00)"
    )
    assert rows["6.12: maps, each further policy of 1000"].ours == "10 bytes"


def test_the_chains_costs_are_compared_with_no_agent_and_with_user_space() -> None:
    spread = Spread(2000.0, 1000.0, 9000.0)
    found = Chain("6.12", spread, spread.times(1.5), spread.times(2), spread.times(30), flat(20000))
    plain = json.loads(json.dumps(found.to_json()))
    assert plain["ratios"] == {"filter": 1.5, "chain": 2.0, "hash": 3.0}
    assert plain["hash_user"] == {"median": 20000, "least": 20000, "most": 20000}
    assert [(row.ratio, row.ours, row.beside) for row in found.rows()] == [
        (1.5, "3 us (2-14)", "no agent 2 us (1-9)"),
        (2.0, "4 us (2-18)", "no agent 2 us (1-9)"),
        (3.0, "60 us (30-270)", "user space 20 us (20-20)"),
    ]
