# SPDX-License-Identifier: Apache-2.0
"""The table of probes, and how what they find becomes an answer. Needs no BPF."""

from __future__ import annotations

import errno
import hashlib
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from refagent import probes, selftest
from refagent.errors import BpfError
from refagent.probes import preempting
from refagent.probes.answers import ConfiguredOut, Finding, Unsupported, kernel_says
from refagent.trampoline import Version, counts_fmod_ret

LIGHT = """
import sys
from refagent import probes, selftest
assert probes.NAMES
heavy = [name for name in sys.modules if name == "cffi" or "libbpf" in name]
assert not heavy, heavy
"""


def test_names_need_no_libbpf() -> None:
    subprocess.run([sys.executable, "-c", LIGHT], check=True)


def test_names_are_unique() -> None:
    assert len(set(probes.NAMES)) == len(probes.PROBES)


@pytest.mark.parametrize("probe", probes.PROBES, ids=lambda probe: probe.name)
def test_every_probe_has_its_function(probe: probes.Probe) -> None:
    module, function = probe.run.split(":")
    assert callable(getattr(importlib.import_module(f"refagent.probes.{module}"), function))


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError, match="rinbuf"):
        probes.run(["rinbuf"])


def _answer(
    monkeypatch: pytest.MonkeyPatch,
    since: tuple[int, int] | None,
    ends: Callable[[], Finding],
    running: tuple[int, int] = (6, 1),
) -> probes.Answer:
    probe = replace(probes.PROBES[0], since=since)
    monkeypatch.setattr(probes, "PROBES", (probe,))
    monkeypatch.setattr(probes, "_function", lambda _: ends)
    monkeypatch.setattr(probes, "_version", lambda: running)
    return probes.run([probe.name])[0]


def _no() -> Finding:
    raise Unsupported("EINVAL: unknown func")


def _configured() -> Finding:
    raise ConfiguredOut("built without it")


def _crash() -> Finding:
    raise OSError(errno.ENOMEM, "no memory")


def test_yes_keeps_words_and_value(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _answer(monkeypatch, (5, 5), lambda: Finding("38 fit", 38))
    assert found.to_json() == {
        "name": "trampoline_limit",
        "answer": "yes",
        "words": "38 fit",
        "value": 38,
    }


def test_no_on_an_older_kernel_is_no(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _answer(monkeypatch, (6, 2), _no)
    assert (found.answer, found.words) == ("no", "EINVAL: unknown func")


def test_no_on_a_kernel_that_must_have_it_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _answer(monkeypatch, (6, 1), _no)
    assert found.answer == "broken"
    assert found.words == "kernels have this since 6.1, and yet: EINVAL: unknown func"


def test_no_by_configuration_is_no_on_every_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _answer(monkeypatch, (5, 5), _configured).answer == "no"


def test_no_without_a_documented_version_is_no(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _answer(monkeypatch, None, _no).answer == "no"


def test_a_probe_that_fails_itself_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _answer(monkeypatch, (6, 2), _crash)
    assert found.answer == "broken"
    assert found.words == "the probe failed: OSError: [Errno 12] no memory"


@pytest.mark.parametrize("algorithm", selftest.DIGESTS)
def test_the_scripts_digests_are_right(algorithm: int) -> None:
    name, digest = selftest.DIGESTS[algorithm]
    assert hashlib.new(name, selftest.CONTENT).hexdigest()[:64] == digest


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EACCES, errno.ENOENT, 524])
def test_errnos_by_which_a_kernel_says_no(number: int) -> None:
    with pytest.raises(Unsupported, match="the reason"), kernel_says():
        raise BpfError("load", number, "text", "the reason\nprocessed 1 insns\n")


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOMEM, errno.EBUSY, 4001])
def test_errnos_that_say_nothing_of_the_kernel(number: int) -> None:
    with pytest.raises(BpfError), kernel_says():
        raise BpfError("load", number, "text")


@pytest.mark.parametrize(
    ("version", "fixed"),
    [
        ((5, 10, 118), False),
        ((5, 10, 119), True),
        ((5, 10, 223), True),
        ((5, 14, 200), False),
        ((5, 15, 43), False),
        ((5, 15, 44), True),
        ((5, 16, 20), False),
        ((5, 17, 12), True),
        ((5, 18, 0), True),
        ((6, 1, 0), True),
    ],
)
def test_which_kernels_count_fmod_ret(version: tuple[int, int, int], fixed: bool) -> None:
    assert counts_fmod_ret(Version(*version)) is fixed


_DEBIAN = "#1 SMP PREEMPT_DYNAMIC Debian 6.12.107-1 (2026-08-29)"


@pytest.mark.parametrize(
    ("cmdline", "modes", "version", "no"),
    [
        ("quiet", None, "#1 SMP Debian 5.10.223-1 (2024-08-10)", ""),
        ("preempt=full", "none voluntary (full) ", _DEBIAN, ""),
        ("preempt=lazy", "full (lazy)", _DEBIAN, ""),
        ("preempt=full", "none (voluntary) full ", _DEBIAN, "says none (voluntary) full"),
        ("preempt=full", None, "#1 SMP PREEMPT_RT Debian 6.12.107-1", ""),
        ("preempt=full", None, "#1 SMP PREEMPT Mon", ""),
        ("preempt=none", None, "#1 SMP PREEMPT Mon", "the kernel is '#1 SMP PREEMPT Mon'"),
        ("preempt=full", None, "#1 SMP Debian 5.10.223-1", "the kernel is '#1 SMP Debian 5.10"),
    ],
)
def test_whether_a_kernel_preempts_itself_as_told(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    cmdline: str,
    modes: str | None,
    version: str,
    no: str,
) -> None:
    said, told = tmp_path / "cmdline", tmp_path / "preempt"
    said.write_text(f"console=ttyS0 {cmdline}\n", encoding="ascii")
    if modes is not None:
        told.write_text(f"{modes}\n", encoding="ascii")
    monkeypatch.setattr(preempting, "_CMDLINE", said)
    monkeypatch.setattr(preempting, "_MODES", told)
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(version=version))
    if not no:
        assert preempting.as_told().value in {None, cmdline.partition("=")[2]}
        return
    with pytest.raises(Unsupported) as caught:
        preempting.as_told()
    assert f"{cmdline} on the command line, and " in str(caught.value)
    assert no in str(caught.value)
