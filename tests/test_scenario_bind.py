# SPDX-License-Identifier: Apache-2.0
"""A scenario meets a kernel: every name gets its value, every step its calls."""

from pathlib import Path
from typing import Any

import pytest

from hookproof.bind import bind
from hookproof.case import Case, cases
from hookproof.decode import read_scenario
from hookproof.scenario import Call, Scenario
from refagent.policy import Policy
from vm.errors import UsageProblem
from vm.kernel import Kernel, LocalSource


def scenario(tmp_path: Path, text: str) -> Scenario:
    path = tmp_path / "case.yaml"
    path.write_text(f"about: a\n{text}", encoding="utf-8")
    return read_scenario(path, "case.yaml")


def bound(tmp_path: Path, text: str, limit: int = 38, **params: Any) -> tuple[Call, ...]:
    return bind(scenario(tmp_path, text), params, {"limit": limit})


KERNELS = [Kernel(name, LocalSource(Path("/boot/vmlinuz"))) for name in ("6.1", "6.12")]

DENY = "policies:\n  deny: {hook: security_path_mkdir, path: /run/t/$i, override: EPERM}\n"


def test_load_makes_one_policy_per_repetition(tmp_path: Path) -> None:
    (call,) = bound(tmp_path, DENY + "steps:\n  - load: deny\n    times: 3\n")
    policies = [Policy.from_json(dict(args["policy"])) for args in call.calls]
    assert policies == [
        Policy(f"deny-{n}", "security_path_mkdir", f"/run/t/{n}", override=1) for n in (1, 2, 3)
    ]
    assert call.gives == ("ok", "ok", "ok")
    assert call.text == "load deny-$i (x3)"


def test_policy_without_counter_keeps_its_name(tmp_path: Path) -> None:
    text = "policies:\n  a: {hook: f}\n  b: {hook: g}\nsteps:\n  - load: [a, b]\n"
    (call,) = bound(tmp_path, text)
    assert [args["policy"] for args in call.calls] == [
        {"name": "a", "hook": "f"},
        {"name": "b", "hook": "g"},
    ]
    assert call.text == "load a b"


def test_one_instance_by_its_number(tmp_path: Path) -> None:
    text = (
        f"params: {{n: [limit]}}\n{DENY}steps:\n"
        "  - load: deny-7\n  - unload: deny-$n\n  - unload: deny\n    times: 2\n"
    )
    load, one, two = bound(tmp_path, text, n=scenario(tmp_path, text).params["n"][0])
    assert load.calls[0]["policy"]["path"] == "/run/t/7"
    assert one.calls == ({"name": "deny-38"},)
    assert two.calls == ({"name": "deny-1"}, {"name": "deny-2"})


def test_loaded_is_one_call_that_gives_the_sorted_names(tmp_path: Path) -> None:
    text = (
        "policies:\n  z: {hook: f}\n  a: {hook: f, path: /$i}\n"
        "steps:\n  - loaded: [z, a]\n    times: 10\n  - loaded: []\n"
    )
    names, none = bound(tmp_path, text)
    assert names.calls == ({},)
    assert names.gives == (sorted(["z", *(f"a-{n}" for n in range(1, 11))]),)
    assert none.gives == ([],)


def test_parameters_and_counter_in_every_argument(tmp_path: Path) -> None:
    text = (
        "params: {d: [x], m: [0o700], e: [EPERM]}\n"
        "steps:\n  - mkdir: /run/$d/$i\n    mode: $m\n    times: 2\n    gives: $e\n"
        "  - exec: [/bin/echo, $d, $$HOME]\n    gives: {exit: $m-447}\n"
    )
    mkdir, ran = bound(tmp_path, text, d="x", m=0o700, e="EPERM")
    assert mkdir.calls == (
        {"path": "/run/x/1", "mode": 0o700},
        {"path": "/run/x/2", "mode": 0o700},
    )
    assert mkdir.gives == ("EPERM", "EPERM")
    assert mkdir.text == "mkdir /run/x/$i (x2)"
    assert ran.calls == ({"argv": ["/bin/echo", "x", "$HOME"], "via": "path"},)
    assert ran.gives == ({"exit": 1},)


@pytest.mark.parametrize(("limit", "times"), [(38, 39), (36, 37)])
def test_facts_come_from_the_kernel(tmp_path: Path, limit: int, times: int) -> None:
    text = "steps:\n  - mkdir: /run/t/$i\n    times: limit+1\n"
    (call,) = bound(tmp_path, text, limit=limit)
    assert len(call.calls) == times


def test_sum_out_of_range_on_this_kernel_names_its_place(tmp_path: Path) -> None:
    text = "steps:\n  - mkdir: /run/t/$i\n    times: limit-40\n"
    with pytest.raises(UsageProblem) as caught:
        bound(tmp_path, text)
    assert str(caught.value) == (
        "case.yaml:4:12: 'limit-40' comes to something wrong here: -2 is out of range; "
        "1 to 100000 are possible here"
    )


def test_unknown_fact_names_its_probe(tmp_path: Path) -> None:
    text = "steps:\n  - mkdir: /run/t/$i\n    times: limit\n"
    with pytest.raises(UsageProblem, match=r"'limit' is not known; see probe trampoline_limit"):
        bind(scenario(tmp_path, text), {}, {})


def test_word_from_a_parameter_must_fit_where_it_lands(tmp_path: Path) -> None:
    text = "params: {d: [run]}\nsteps:\n  - mkdir: ${d}/x\n"
    with pytest.raises(UsageProblem, match=r"case\.yaml:4:12: .*'run/x' is not an absolute path"):
        bound(tmp_path, text, d="run")


def test_cases_are_kernels_times_parameters(tmp_path: Path) -> None:
    text = "params: {n: [limit+1, 64], e: [EPERM]}\nsteps:\n  - mkdir: /$n\n    gives: $e\n"
    got = list(cases(scenario(tmp_path, text), KERNELS))
    assert [case.name for case in got] == [
        "case[6.1-limit+1-EPERM]",
        "case[6.1-64-EPERM]",
        "case[6.12-limit+1-EPERM]",
        "case[6.12-64-EPERM]",
    ]
    assert got[1].params == {"n": 64, "e": "EPERM"}


def test_case_without_parameters_is_called_by_its_kernel(tmp_path: Path) -> None:
    text = "boot: quiet\nsteps:\n  - mkdir: /x\n"
    (case, _) = cases(scenario(tmp_path, text), KERNELS)
    assert isinstance(case, Case)
    assert (case.id, case.machine) == ("6.1", ("6.1", ("quiet",)))


def test_only_kernels_of_these_names(tmp_path: Path) -> None:
    text = "about: a\nonly: ['7.*', 6.12]\nsteps:\n  - mkdir: /x\n"
    path = tmp_path / "case.yaml"
    path.write_text(text)
    assert [case.kernel.name for case in cases(read_scenario(path), KERNELS)] == ["6.12"]
