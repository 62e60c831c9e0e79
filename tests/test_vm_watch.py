# SPDX-License-Identifier: Apache-2.0
"""Kernel reports are found once each, whole, and nothing else is taken for one.

The logs stand in tests/splats/NAME.log, what must be found in them in NAME.toml; its
`origin` says which kernel printed the log, or which code of the kernel's it follows.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vm.errors import UsageProblem
from vm.watch import ConsoleScanner, Watch, kmsg_line, new_taints, taints
from vm.watch.console import LINE_LIMIT
from vm.watch.lines import texts
from vm.watch.rules import FATAL
from vm.watch.scan import EXCERPT_LINES, Splat

SPLATS = Path(__file__).with_name("splats")
CASES = sorted(path.stem for path in SPLATS.glob("*.log"))
WATCH = Watch.load()


@cache
def log(name: str) -> str:
    # Not read_text(): it would turn the console's CR LF into LF.
    return (SPLATS / f"{name}.log").read_bytes().decode("utf-8", "replace")


@cache
def facts(name: str) -> dict[str, Any]:
    return tomllib.loads((SPLATS / f"{name}.toml").read_text(encoding="utf-8"))


def expected(name: str) -> list[dict[str, Any]]:
    splats: list[dict[str, Any]] = facts(name).get("splat", [])
    return splats


def seen(splat: Splat) -> dict[str, Any]:
    return {
        "kind": splat.kind,
        "name": splat.name,
        "line_number": splat.line_number,
        "line": splat.line,
        "excerpt_lines": splat.excerpt.count("\n") + 1,
    }


# Golden cases


def test_cases_and_expectations_come_in_pairs() -> None:
    assert sorted(path.stem for path in SPLATS.glob("*.toml")) == CASES
    assert CASES


@pytest.mark.parametrize("name", CASES)
def test_finds_each_report_once_and_nothing_else(name: str) -> None:
    assert facts(name)["origin"]
    found = Watch.load(facts(name).get("release", "")).scan(log(name))
    assert [seen(splat) for splat in found] == expected(name)


@pytest.mark.parametrize("name", CASES)
def test_an_excerpt_is_a_piece_of_the_log_around_its_head_line(name: str) -> None:
    for splat in WATCH.scan(log(name)):
        excerpt = splat.excerpt.split("\n")
        assert len(excerpt) <= EXCERPT_LINES
        assert any(splat.line in texts(line) for line in excerpt)
        assert set(excerpt) - set(log(name).replace("\r", "").split("\n")) <= {
            line for line in excerpt if "lines left out" in line
        }


@pytest.mark.parametrize("pattern", [pattern.name for pattern in WATCH.patterns])
def test_each_pattern_has_a_golden_case(pattern: str) -> None:
    assert any(pattern == splat["name"] for name in CASES for splat in expected(name))


def test_each_allow_entry_is_used_by_a_golden_case() -> None:
    for entry in WATCH.allowances:
        assert any(
            entry.regex.match(text)
            for name in CASES
            for line in log(name).split("\n")
            for text in texts(line)
        ), entry.reason


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("boot-")])
def test_a_whole_boot_is_clean(name: str) -> None:
    assert log(name).count("\n") > 200
    assert "Linux version" in log(name)
    assert expected(name) == []


# The live console


def fed(data: bytes, sizes: Iterator[int]) -> ConsoleScanner:
    scanner = ConsoleScanner(WATCH)
    while data:
        size = next(sizes)
        scanner.feed(data[:size])
        data = data[size:]
    scanner.finish()
    return scanner


@pytest.mark.parametrize("name", CASES)
def test_the_console_agrees_with_the_scan(name: str) -> None:
    raw = (SPLATS / f"{name}.log").read_bytes()
    live = fed(raw, iter(lambda: 1013, 0)).fatal
    first = next((one for one in expected(name) if one["kind"] in FATAL), None)
    if first is None:
        assert live is None
    else:
        assert live is not None
        assert (live.kind, live.line) == (first["kind"], first["line"])
        assert live.line_number == first["line_number"]


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=20),
    head=st.sampled_from([one.example for one in WATCH.patterns if one.kind in FATAL]),
    before=st.text(max_size=200).filter(lambda text: not text.startswith("<")),
    end=st.sampled_from(["\n", "\r\n", "\r\r\n"]),
)
def test_a_head_line_is_seen_however_its_bytes_arrive(
    sizes: list[int], head: str, before: str, end: str
) -> None:
    data = f"{before}[   12.345678][    C1] {head}{end}".encode("utf-8", "surrogatepass")

    def forever() -> Iterator[int]:
        while True:
            yield from sizes

    live = fed(data, forever()).fatal
    assert live is not None
    assert live.kind in FATAL


def test_a_panic_is_seen_with_its_newline_and_its_report_grows() -> None:
    scanner = ConsoleScanner(WATCH)
    assert scanner.feed(b"[    1.000000] Kernel panic - not syncing: dead") is None
    first = scanner.feed(b"\r\n")
    assert first is not None
    assert first.excerpt == "[    1.000000] Kernel panic - not syncing: dead"
    scanner.feed(b"[    1.000001] CPU: 0 PID: 1 Comm: init\r\n[    1.000002] Call Trace:\r\n")
    assert scanner.fatal is not None
    assert scanner.fatal.excerpt.endswith("Call Trace:")


def test_a_panic_without_a_newline_counts_when_the_console_ends() -> None:
    scanner = ConsoleScanner(WATCH)
    scanner.feed(b"Kernel panic - not syncing: dead")
    assert scanner.finish() is not None


def test_a_character_cut_in_two_and_bytes_that_are_none() -> None:
    scanner = ConsoleScanner(WATCH)
    raw = "é".encode()
    scanner.feed(b"\xff" + raw[:1])
    scanner.feed(raw[1:] + b" \xf0\x28\n")
    assert scanner.tail == "\ufffdé \ufffd("


def test_memory_stays_bounded() -> None:
    scanner = ConsoleScanner(WATCH, tail_lines=50)
    for _ in range(300):
        scanner.feed(b"x" * 20_000)
    scanner.feed(b"\nKernel panic - not syncing: dead\n")
    for _ in range(300):
        scanner.feed(b"y" * 997 + b"\n" + b"z" * 20_000)
    assert len(scanner.tail) <= 51 * (LINE_LIMIT + 1)
    assert scanner.fatal is not None
    assert len(scanner.fatal.excerpt) <= EXCERPT_LINES * (LINE_LIMIT + 1)
    assert sum(map(len, scanner._report)) < 1_000_000


def test_a_warning_does_not_stop_the_wait() -> None:
    scanner = ConsoleScanner(WATCH)
    assert scanner.feed(b"WARNING: CPU: 0 PID: 1 at kernel/x.c:1 f+0x1/0x2\n") is None
    assert WATCH.panicked("WARNING: CPU: 0 PID: 1 at kernel/x.c:1 f+0x1/0x2\n") is None


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=[])))
def test_any_text_can_be_scanned(text: str) -> None:
    for splat in WATCH.scan(text):
        assert splat.line


# Lines


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("[   12.345678] text", ("text",)),
        ("[   12.345678][    T1] text\r", ("text",)),
        ("[   12.345678] [   13.000000][   C10]  two", (" two",)),
        ("<4>[   12.345678] text", ("text",)),
        ("<12>[   12.345678] BUG: said a process", ()),
        ("\x1b[0;1;31mred\x1b[0m\r\n", ("red",)),
        ("\x1bc\x1b[?7l\x1b[2J\x1b]0;title\x07SeaBIOS", ("SeaBIOS",)),
        ("login: [   12.345678] BUG: x", ("login: ", "BUG: x")),
        ("50%\r100%", ("50%", "100%")),
        ("a\x00b\x07c\td", ("abc\td",)),
        ("", ()),
    ],
)
def test_what_a_line_says(line: str, expected: tuple[str, ...]) -> None:
    assert texts(line.rstrip("\n")) == expected


@pytest.mark.parametrize(
    ("record", "line"),
    [
        ("6,339,5140900,-;NET: Registered", "[    5.140900] NET: Registered"),
        ("4,1,123456789012,c;late", "[123456.789012] late"),
        ("6,1,5,-,caller=T12;text", "[    0.000005] text"),
        ("14,424,4263148,-;init: loading", "<14>[    4.263148] init: loading"),
        ("6,1,0,-;pci\n SUBSYSTEM=pci\n DEVICE=+pci:0", "[    0.000000] pci"),
        ("3,1,0,-;a\\x0ab", "[    0.000000] a\n[    0.000000] b"),
        ("3,1,0,-;\\xc3\\xa9 \\x5c \\xff", "[    0.000000] é \\ \ufffd"),
    ],
)
def test_a_record_of_kmsg_as_a_line(record: str, line: str) -> None:
    assert kmsg_line(record) == line


def test_what_is_no_record_of_kmsg() -> None:
    with pytest.raises(ValueError, match="no record"):
        kmsg_line("[    1.000000] text")


# Taints


def test_taints_in_letters_and_words() -> None:
    assert taints(0) == ()
    assert taints(1 << 9 | 1 << 7) == (
        "D (kernel died recently, i.e. there was an OOPS or BUG)",
        "W (kernel issued warning)",
    )
    assert taints(1 << 40) == ("bit 40 (unknown)",)
    assert len(taints((1 << 20) - 1)) == 20
    with pytest.raises(ValueError, match="negative"):
        taints(-1)


def test_only_new_bits_that_are_events_are_findings() -> None:
    module = 1 << 12 | 1 << 13
    assert new_taints(0, module) == ()
    assert new_taints(1 << 9, 1 << 9) == ()
    assert new_taints(module, module | 1 << 9) == ("W (kernel issued warning)",)
    assert new_taints(0, 1 << 30) == ("bit 30 (unknown)",)


# A watch that cannot work says so

GOOD = """
[[pattern]]
name = "one"
kind = "warn"
regex = 'one'
source = "x"
example = "one"
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no pattern"),
        ("pattern = 1", "no list of tables"),
        ("[[pattrn]]\nname = 'x'", "unknown key 'pattrn'"),
        ("[[pattern]\n", "cannot be read"),
        (GOOD.replace("kind", "sort"), "unknown key 'sort'"),
        (GOOD.replace('"warn"', '"worn"'), "unknown kind 'worn'"),
        (GOOD.replace("'one'", "'o(n'"), "no regular expression"),
        (GOOD.replace("'one'", "'(o)ne'"), "capturing group"),
        (GOOD.replace("'one'", "'o?'"), "matches an empty line"),
        (GOOD.replace('example = "one"', 'example = "two"'), "does not match"),
        (GOOD + GOOD, "a second pattern"),
        (GOOD + GOOD.replace('"one"', '"two"', 1), "goes to 'one'"),
        (GOOD + 'with = ["three"]', "'one' stands with 'three'"),
        (GOOD + 'with = "three"', "a list of words"),
    ],
)
def test_wrong_patterns_stop_the_watch(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "patterns.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageProblem, match=message) as caught:
        Watch.load(patterns=file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_stops_the_watch(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="cannot be read"):
        Watch.load(patterns=tmp_path / "none.toml")


ALLOW = """
[[allow]]
regex = 'WARNING: \\S+ PID: \\d+ at arch/x86/'
patterns = ["warning"]
kernels = "5.10.*"
reason = "the emulated processor has no such thing"
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ALLOW.replace("reason", "because"), "unknown key 'because'"),
        (ALLOW.replace('"the emulated processor has no such thing"', '" "'), "needs 'reason'"),
        (ALLOW.replace('"warning"', '"warnin"'), "unknown pattern 'warnin'"),
        (ALLOW.replace('"warning"', '"bug"'), "oops 'bug' cannot be allowed"),
        (ALLOW.replace('["warning"]', "[]"), "needs 'patterns'"),
        (ALLOW.replace('"5.10.*"', '""'), "needs 'kernels'"),
    ],
)
def test_wrong_allowances_stop_the_watch(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "allow.toml"
    file.write_text(text.replace("\\S+ PID", "CPU: 0 PID"), encoding="utf-8")
    with pytest.raises(UsageProblem, match=message):
        Watch.load(allow=file)


def test_an_allowance_covers_its_kernels_and_its_reports_only(tmp_path: Path) -> None:
    file = tmp_path / "allow.toml"
    file.write_text(ALLOW.replace("\\S+ PID", "CPU: 0 PID"), encoding="utf-8")
    here = "WARNING: CPU: 0 PID: 1 at arch/x86/kernel/x.c:1 f+0x1/0x2"
    there = "WARNING: CPU: 0 PID: 1 at kernel/bpf/x.c:1 f+0x1/0x2"
    old, new = Watch.load("5.10.0-32-amd64", allow=file), Watch.load("6.12.1", allow=file)
    assert old.scan(here) == ()
    assert len(old.scan(there)) == 1
    assert len(new.scan(here)) == 1
    assert len(Watch.load(allow=file).scan(here)) == 1


def test_an_oops_is_not_excused_by_what_names_it(tmp_path: Path) -> None:
    file = tmp_path / "allow.toml"
    file.write_text(
        """[[allow]]
        regex = 'list_del corruption'
        patterns = ["list-corruption"]
        kernels = "*"
        reason = "a test"
        """,
        encoding="utf-8",
    )
    watch = Watch.load(allow=file)
    head = "list_del corruption. prev->next should be ffff8f3c81a2f800"
    assert watch.scan(head) == ()
    [splat] = watch.scan(f"{head}\nkernel BUG at lib/list_debug.c:51!\n")
    assert (splat.kind, splat.name) == ("oops", "list-corruption")
