# SPDX-License-Identifier: Apache-2.0
"""The commands that ask a running daemon."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from refagent.cli_show import columns, details, policy_row, printable
from refagent.client import Client
from refagent.errors import AgentError, Unreachable

_COUNTS: Final = ("matched", "denied", "outvoted", "lost")


def add_parsers(commands: Any, common: argparse.ArgumentParser) -> None:
    """Adds the commands to argparse's sub-parsers; `common` are the options of all."""

    def add(name: str, about: str, run: Callable[[argparse.Namespace], int]) -> Any:
        parser = commands.add_parser(name, parents=[common], help=about, description=about)
        parser.set_defaults(run=run, command=name)
        return parser

    load = add("load", "load all policies of a file, or none", _load)
    load.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="short form or TracingPolicy"
    )
    for name, about in (
        ("unload", "take policies out of the kernel"),
        ("enable", "put disabled policies into effect again"),
        ("disable", "take policies out of effect, and keep their counts"),
    ):
        add(name, about, _each).add_argument("names", nargs="+", metavar="NAME")
    as_json = [
        add("list", "show what is loaded, the policy that decides first above", _list),
        add("stats", "show what became of the calls that policies matched", _stats),
        add("status", "show what is in the kernel", _status),
    ]
    as_json[1].add_argument("names", nargs="*", metavar="NAME", help="default: all")
    for parser in as_json:
        parser.add_argument("--json", action="store_true", help="print JSON")
    add("events", "print events as JSON lines as they come, until Ctrl-C", _events)


def _load(arguments: argparse.Namespace) -> int:
    from refagent import policyfile  # and yaml

    # A mistake in the last file is found before the first one is loaded.
    files = [(path, policyfile.read(path)) for path in arguments.files]
    failed = False
    with Client(arguments.socket) as client:
        for path, policies in files:
            try:
                client.request("load", policies=[policy.to_json() for policy in policies])
            except Unreachable:
                raise
            except AgentError as failure:
                _complain(f"{path}: {failure}")
                failed = True
            else:
                for policy in policies:
                    print(printable(f"loaded {policy.name}"))
                _tell_uncovered(client, {policy.hook for policy in policies})
    return int(failed)


def _tell_uncovered(client: Client, functions: set[str]) -> None:
    """Says which calls the policies that were loaded do not see, though one might think so."""
    for function, twin in client.request("status")["uncovered"].items():
        if function in functions:
            _complain(
                f"{function} is not what 32-bit programs come in by: that is {twin}, "
                "where no policy is"
            )


def _each(arguments: argparse.Namespace) -> int:
    """Does the same to each policy; one that cannot be had does not stop the others."""
    failed = False
    with Client(arguments.socket) as client:
        for name in arguments.names:
            try:
                client.request(arguments.command, name=name)
            except Unreachable:
                raise
            except AgentError as failure:
                _complain(str(failure))
                failed = True
    return int(failed)


def _list(arguments: argparse.Namespace) -> int:
    with Client(arguments.socket) as client:
        found = client.request("policies")
    if arguments.json:
        _print_json([each["policy"] | {"enabled": each["enabled"]} for each in found])
        return 0
    heads = ["NAME", "HOOK", "ACTS ON", "DOES", "ENABLED"]
    _print([heads, *(policy_row(each["policy"], each["enabled"]) for each in found)])
    return 0


def _stats(arguments: argparse.Namespace) -> int:
    with Client(arguments.socket) as client:
        if arguments.names:
            counts = {name: client.request("counts", name=name) for name in arguments.names}
        else:
            counts = {each["policy"]["name"]: each["counts"] for each in client.request("policies")}
    if arguments.json:
        _print_json(counts)
        return 0
    rows = [[name, *(str(each[key]) for key in _COUNTS)] for name, each in counts.items()]
    _print([["NAME", *(key.upper() for key in _COUNTS)], *rows])
    return 0


def _status(arguments: argparse.Namespace) -> int:
    with Client(arguments.socket) as client:
        status = client.request("status")
    if arguments.json:
        _print_json(status)
    else:
        _print(details(status))
    return 0


def _events(arguments: argparse.Namespace) -> int:
    with Client(arguments.socket) as client, _killed_by_interrupt():
        for line in client.follow():
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
    raise Unreachable(f"the daemon at {arguments.socket} has ended")


@contextlib.contextmanager
def _killed_by_interrupt() -> Iterator[None]:
    """Lets the kernel end this process at SIGINT, as it ends tail -f.

    Python raises KeyboardInterrupt between two of its own instructions only. For a signal between
    the last of them and the wait for an event, it would be raised with the next event.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # or who started us wants it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _complain(text: str) -> None:
    print(f"refagent: {printable(text)}", file=sys.stderr)


def _print(rows: Iterable[list[str]]) -> None:
    for line in columns(list(rows)):
        print(line)


def _print_json(what: Any) -> None:
    print(json.dumps(what, indent=2))
