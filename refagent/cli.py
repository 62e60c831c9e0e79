# SPDX-License-Identifier: Apache-2.0
"""The command `refagent`: the daemon, and what can be asked of it."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from refagent import cli_ask, protocol, stdout
from refagent.cli_show import printable
from refagent.errors import AgentError
from refagent.place import DEFAULT

#: What a shell reports for a command that was ended by SIGINT.
INTERRUPTED: Final = 128 + signal.SIGINT


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; each sets `run`, from the arguments to an exit status."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--socket", type=Path, default=protocol.CONTROL, metavar="PATH", help="default: %(default)s"
    )
    top = argparse.ArgumentParser(
        prog="refagent", description="Enforces policies in the running kernel with BPF programs."
    )
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    about = "run the daemon until SIGTERM or Ctrl-C"
    run = commands.add_parser("run", parents=[common], help=about, description=about)
    run.add_argument("--events", metavar="FILE", help="append events as JSON lines; - is stdout")
    where = run.add_mutually_exclusive_group()
    where.add_argument(
        "--base",
        type=Path,
        default=DEFAULT,
        metavar="FOLDER",
        help="where everything is pinned and what is pinned is taken over; default: %(default)s",
    )
    where.add_argument(
        "--no-pin",
        dest="base",
        action="store_const",
        const=None,
        help="pin nothing: all ends with the daemon, however it ends",
    )
    run.add_argument(
        "--keep",
        action="store_true",
        help="at the end leave what is pinned to the next daemon, and unload nothing",
    )
    run.set_defaults(run=_run)
    cli_ask.add_parsers(commands, common)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: the arguments; the process's own if left out.

    Returns:
        The exit status: 0, 1 if something was refused or failed, 130 if it was interrupted.
        argparse ends the process with 2 where the arguments are wrong.
    """
    arguments = parser().parse_args(argv)
    try:
        with stdout.written():
            status: int = arguments.run(arguments)
    except AgentError as failure:
        print(f"refagent: {printable(str(failure))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    return status


def _run(arguments: argparse.Namespace) -> int:
    from refagent import cli_run  # needs libbpf, and much time to import

    return cli_run.run(arguments.socket, arguments.events, arguments.base, keep=arguments.keep)
