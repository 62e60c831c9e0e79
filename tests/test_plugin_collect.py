# SPDX-License-Identifier: Apache-2.0
"""Which files are scenarios, which kernels are selected, and how both are refused."""

import shlex
from pathlib import Path

import pytest

from hookproof import repeats
from hookproof.case import cases
from hookproof.decode import read_scenario
from hookproof.settings import Settings
from hookproof.verdict import Outcome, Verdict
from tests.kerneltree import Tree
from vm import catalog

pytest_plugins = ["pytester"]

PLUGINS = ("-p", "hookproof.plugin", "-p", "no:hypothesispytest")
SCENARIO = "about: a\nsteps:\n  - mkdir: /x\n"
KERNELS = "5.10 local:/boot/a default=no\n6.1 local:/boot/b\n6.12 local:/boot/c\n"


@pytest.fixture
def place(pytester: pytest.Pytester) -> pytest.Pytester:
    """A repository with one scenario and three kernels, none of which is there."""
    pytester.makeini("[pytest]\n")
    write(pytester, "kernels.txt", KERNELS)
    write(pytester, "scenarios/one.yaml", SCENARIO)
    return pytester


def write(pytester: pytest.Pytester, name: str, text: str) -> Path:
    path = pytester.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def collect(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess(*PLUGINS, "--collect-only", "-q", *args)


def ids(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if "::" in line]


def test_yaml_below_scenarios_only(place: pytest.Pytester) -> None:
    write(place, "scenarios/deep/er/two.yaml", SCENARIO)
    write(place, "other/three.yaml", SCENARIO)
    write(place, "docker-compose.yaml", "services: {a: {image: b}}\n")
    write(place, "sub/scenarios/four.yaml", SCENARIO)
    write(place, "scenarios/schema.json", "{}")
    got = ids(collect(place, "--kernel", "6.1"))
    assert sorted(got) == [
        "scenarios/deep/er/two.yaml::two[6.1]",
        "scenarios/one.yaml::one[6.1]",
        "sub/scenarios/four.yaml::four[6.1]",
    ]


def test_file_named_on_the_command_line_is_a_scenario_wherever_it_lies(
    place: pytest.Pytester,
) -> None:
    write(place, "other/three.yaml", SCENARIO)
    got = ids(collect(place, "other/three.yaml", "--kernel=6.12"))
    assert got == ["other/three.yaml::three[6.12]"]
    assert ids(collect(place, "other/three.yaml::three[6.12]")) == got


@pytest.mark.parametrize(("root", "found"), [("own/scenarios", True), ("scenarios/own", False)])
def test_root_folder_may_be_called_scenarios_but_not_one_above_it(
    pytester: pytest.Pytester, root: str, found: bool
) -> None:
    write(pytester, f"{root}/pytest.ini", "[pytest]\n")
    write(pytester, f"{root}/kernels.txt", KERNELS)
    write(pytester, f"{root}/one.yaml", SCENARIO)
    result = collect(pytester, "-c", f"{root}/pytest.ini", root, "--kernel", "6.1")
    assert ids(result) == (["one.yaml::one[6.1]"] if found else [])


@pytest.mark.parametrize("key", ["only", "splats"])
def test_a_pattern_that_is_no_kernels_is_told(place: pytest.Pytester, key: str) -> None:
    # It would take the scenario out of every run, or a bug's proof, without a word.
    write(place, "scenarios/two.yaml", f"{key}: ['6.21', '6.1*']\n{SCENARIO}")
    result = collect(place, "-W", "default")
    said = f"scenarios/two.yaml: '{key}' has '6.21', and no kernel is called so; did you mean "
    assert said in result.stdout.str().replace("\n", " ")
    assert "6.1*" not in result.stdout.str()
    assert "scenarios/two.yaml::two[6.12]" in ids(result)
    strict = collect(place, "-W", "error")
    assert strict.ret == pytest.ExitCode.INTERRUPTED
    assert [line for line in strict.outlines if line.startswith(said)]


def test_a_pattern_may_be_of_a_kernel_of_the_list_that_comes_with_us(
    place: pytest.Pytester,
) -> None:
    # The scenarios that come with it are run on lists of one's own, too.
    write(place, "scenarios/two.yaml", f"only: ['7.3', '*-kprobe']\n{SCENARIO}")
    result = collect(place)
    result.assert_outcomes(warnings=0)
    assert "scenarios/two.yaml" not in result.stdout.str()


def test_other_suffix_below_scenarios_is_told(place: pytest.Pytester) -> None:
    write(place, "scenarios/two.yml", SCENARIO)
    result = collect(place)
    result.stdout.fnmatch_lines(["*'two.yml' is no name for a scenario*"])
    assert result.ret == pytest.ExitCode.INTERRUPTED


@pytest.mark.parametrize(
    ("args", "kernels"),
    [
        ([], ["6.1", "6.12"]),
        (["--kernel", "all"], ["5.10", "6.1", "6.12"]),
        (["--kernel", "6.12"], ["6.12"]),
        (["--kernel", "6.*"], ["6.1", "6.12"]),
        (["--kernel", "6.12,5.10"], ["5.10", "6.12"]),
        (["--kernel", "6.12", "--kernel", "5.*"], ["5.10", "6.12"]),
        (["-o", "hookproof_kernel=5.10,6.1"], ["5.10", "6.1"]),
        (["-o", "hookproof_kernel=5.10", "--kernel", "6.1"], ["6.1"]),
    ],
)
def test_kernels_are_selected(place: pytest.Pytester, args: list[str], kernels: list[str]) -> None:
    result = collect(place, *args)
    assert ids(result) == [f"scenarios/one.yaml::one[{name}]" for name in kernels]


def test_unknown_kernel_is_a_usage_error_that_says_which_there_are(place: pytest.Pytester) -> None:
    result = collect(place, "--kernel", "5.11")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert [line for line in result.errlines if line] == [
        "ERROR: no kernel matches '5.11'; did you mean '5.10'? known: 5.10, 6.1, 6.12"
    ]
    assert result.outlines == []


def test_a_kernel_to_be_built_is_left_out_of_all_and_that_is_said(place: pytest.Pytester) -> None:
    Tree(place.path)
    write(place, "kernels.txt", f"{KERNELS}own build:linux,config=mine.config default=no\n")
    result = collect(place, "--kernel", "all")
    assert len(ids(result)) == 3
    result.stdout.fnmatch_lines(["left out: own would have to be built first*"])
    assert ids(collect(place, "--kernel", "own")) == ["scenarios/one.yaml::one[own]"]


def test_own_list_of_kernels(place: pytest.Pytester) -> None:
    write(place, "lists/mine.txt", "mine local:vmlinuz\n")
    for args in (["--kernels", "lists/mine.txt"], ["-o", "hookproof_kernels=lists/mine.txt"]):
        assert ids(collect(place, *args)) == ["scenarios/one.yaml::one[mine]"]


def test_packaged_kernels_serve_a_repository_without_its_own(place: pytest.Pytester) -> None:
    (place.path / "kernels.txt").unlink()
    assert "scenarios/one.yaml::one[6.12]" in ids(collect(place))


def test_broken_list_of_kernels_is_told_once_and_in_one_line(place: pytest.Pytester) -> None:
    write(place, "kernels.txt", "6.1 local:/boot/b\n6.1 local:/boot/c\n")
    write(place, "scenarios/two.yaml", SCENARIO)
    result = collect(place)
    text = result.stdout.str()
    assert text.count("kernels.txt:2:1: kernel '6.1' was named before, on line 1") == 1
    assert "Traceback" not in text
    result.stdout.fnmatch_lines(["ERROR scenarios/one.yaml*", "*1 error*"])
    named = collect(place, "--kernel", "all")
    assert named.ret == pytest.ExitCode.USAGE_ERROR
    named.stderr.fnmatch_lines(["ERROR: *kernels.txt:2:1: kernel '6.1' was named before*"])


def test_values_of_accel_are_checked(place: pytest.Pytester) -> None:
    assert collect(place, "--accel", "fast").ret == pytest.ExitCode.USAGE_ERROR
    result = collect(place, "-o", "hookproof_accel=tgc")
    result.stdout.fnmatch_lines(
        ["*hookproof_accel: 'tgc' is no value of --accel; did you mean 'tcg'?"]
    )


def test_session_without_scenarios_reads_no_list_of_kernels(pytester: pytest.Pytester) -> None:
    write(pytester, "kernels.txt", "this is not ours: at all\n")
    write(pytester, "config/values.yaml", "a: [*broken\n")
    pytester.makepyfile("def test_it(): pass\n")
    result = pytester.runpytest_inprocess(*PLUGINS)
    result.assert_outcomes(passed=1)
    assert result.ret == 0
    assert not (pytester.path / "results").exists()


def test_plugin_alone_imports_no_yaml_and_nothing_of_machines(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(
        """
        import sys
        def test_it():
            assert "hookproof.plugin" in sys.modules
            heavy = {"yaml", "paramiko", "cffi", "junit_xml", "hookproof.runner", "vm.machine"}
            assert not heavy & set(sys.modules)
        """
    )
    root = Path(__file__).parent.parent
    monkeypatch.setenv("PYTHONPATH", str(root))
    pytester.runpytest_subprocess(*PLUGINS).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    "value", ["limit", "limit-1", "a=b,c", "50%", "x(*)", "not", "a@b::c", "[1"]
)
def test_a_case_that_failed_is_had_again_and_no_other(place: pytest.Pytester, value: str) -> None:
    """By the words that `--repeat` prints, whatever a parameter is made of."""
    values = dict.fromkeys(("limit", "limit-1", f"{value}x", value))
    text = f"about: a\nparams: {{p: {list(values)}}}\nsteps:\n  - mkdir: /$p\n"
    path = write(place, "scenarios/two.yaml", text)
    kernels = catalog.select(catalog.read(place.path / "kernels.txt"), ["6.12"])
    turns = [
        case
        for case in cases(read_scenario(path, "scenarios/two.yaml"), kernels, 2)
        if case.choice == f"6.12-{value}"
    ]
    settings = Settings("tcg", place.path, kernels, kernels, place.path, repeat=2)
    *_, again = repeats.lines([(each, Verdict(Outcome.FAIL)) for each in turns], settings)
    _, _, command = again.partition("hookproof run ")
    words = shlex.split(command)
    del words[words.index("--kernels") :]
    assert ids(collect(place, *words)) == [f"scenarios/two.yaml::{each.name}" for each in turns]
