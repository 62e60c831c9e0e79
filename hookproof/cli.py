# SPDX-License-Identifier: Apache-2.0
"""The command `hookproof`: finds the sub-command and shows a problem as one line."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from refagent import stdout
from vm.errors import Problem

#: Sub-command → what it does. Each lives in `hookproof.cli_NAME`, whose `add_parser` gets
#: argparse's sub-parsers and sets `run`, a function from the arguments to an exit status.
#: Only the one that was called is imported.
COMMANDS: dict[str, str] = {
    "run": "run scenarios on kernels",
    "kernels": "list, fetch, verify and probe kernels",
    "shell": "open a shell in a virtual machine",
    "doctor": "say what this host has and lacks, and how to mend it",
    "mutants": "put known bugs into the agent, and see the scenarios fail",
    "bench": "measure ours beside virtme-ng",
}
#: What a shell reports for a command that was ended by SIGINT.
INTERRUPTED = 128 + signal.SIGINT


def parser(chosen: str) -> argparse.ArgumentParser:
    """The parser with all of the named sub-command's options, and the names of the others."""
    top = argparse.ArgumentParser(
        prog="hookproof", description="Does an eBPF agent enforce its policy on this kernel?"
    )
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for name, about in COMMANDS.items():
        if name == chosen:
            importlib.import_module(f"hookproof.cli_{name}").add_parser(commands)
        else:
            commands.add_parser(name, help=about)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a sub-command.

    Args:
        argv: the arguments; the process's own if left out.

    Returns:
        The sub-command's exit status; 2 for a problem, 130 if it was interrupted.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    # SIGTERM unwinds as Ctrl-C does, so that machines and temporary folders are put away.
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        words, command = _split(words)
        arguments = parser(words[0] if words else "").parse_args(words)
        if command:
            arguments.command = command
        with stdout.written():
            status: int = arguments.run(arguments)
    except (Problem, stdout.Unwritable) as problem:
        print(f"hookproof: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("hookproof: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    finally:
        signal.signal(signal.SIGTERM, before)
    return status


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Our words, and the command of `hookproof shell KERNEL [OPTIONS] -- COMMAND`.

    argparse gives a positional argument of any length its empty match before an option.
    """
    if words[:1] != ["shell"] or "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
