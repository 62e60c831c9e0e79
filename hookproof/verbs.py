# SPDX-License-Identifier: Apache-2.0
"""The verbs of the scenario language, as a table.

The decoder, the JSON schema, the reference in docs/scenarios.md and the judge all read
it. A new verb is an entry here and a function in the guest's executor.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hookproof.fields import Decoded, Field, Gives, PolicyName
from hookproof.forms import Many
from hookproof.guest.points import POINTS, RETURNS, WAKES
from hookproof.kinds import (
    MOST_TIMES,
    Argv,
    Choice,
    Errno,
    Number,
    Path,
    Repeats,
    Text,
    errnos,
)
from hookproof.within import Branches, Meanwhile, OneStep, check_hold
from hookproof.yamltree import Location, blame

FUNCTION = Text(
    "a kernel function's name", "[A-Za-z_][A-Za-z0-9_.]*|.*\\$.*", "such as security_path_mkdir"
)
HOOK = Text(
    "a kernel function's name, or an LSM hook's",
    "(lsm/)?[A-Za-z_][A-Za-z0-9_.]*|.*\\$.*",
    "such as security_path_mkdir or lsm/bprm_check_security",
)
MAP = Text("a BPF map's name", "[A-Za-z0-9_.]{1,15}|.*\\$.*", "such as override_tasks")
PATH = Path()
TEXT = Text()
THREAD = Text("a thread's name", "[a-z][a-z0-9]*", "such as a or t1")
ERRNO = Errno(errnos, "an errno", "such as EPERM")
NAMES = Many(PolicyName(), "a policy's name, or a list of them")
COUNT = Number(0, 2**31)

#: Flags of open(2), under their names in fcntl.h.
OPEN_FLAGS = (
    *("O_RDONLY", "O_WRONLY", "O_RDWR", "O_APPEND", "O_CLOEXEC", "O_CREAT", "O_DIRECT"),
    *("O_DIRECTORY", "O_DSYNC", "O_EXCL", "O_NOATIME", "O_NOCTTY", "O_NOFOLLOW", "O_NONBLOCK"),
    *("O_PATH", "O_SYNC", "O_TMPFILE", "O_TRUNC"),
)
FLAGS = Many(Choice(lambda: OPEN_FLAGS, "a flag of open"), "a flag of open, or a list of them")

SIGNALS = tuple(each.name for each in signal.Signals)

#: Kinds of BPF links that `links` counts on a function.
LINK_KINDS = {
    "fmod_ret": "programs that may replace the function's return value",
    "kprobe": "kprobes",
    "fentry": "programs run at its entry",
    "fexit": "programs run at its exit",
    "lsm": "BPF LSM programs on the hook",
}

#: Those of which a scenario can attach some of its own.
FOREIGN_KINDS = ("fentry", "fexit", "fmod_ret", "lsm")

#: What `counts` tells of a policy.
CALL_COUNTS = {
    "matched": "calls that the policy matched",
    "denied": "calls that were denied for its sake",
    "outvoted": "calls about which a policy that was loaded earlier decided",
    "lost": "calls that went through because the agent had no room to note the denial",
}

#: What `events` compares, of those events that have come for a policy.
EVENT_KEYS = {
    "hook": "the function that was called",
    "path": "the call's path",
    "comm": "the name of the thread that called it",
    "decided": "the policy that decided about the call",
    "override": "the errno that the call returned",
    "hash": "the digest of the call's file, such as sha256:…, at LSM hooks",
    "no_hash": "or the errno that says why there is none",
}


def _event_form(key: str) -> Text | Errno:
    return ERRNO if key in {"override", "no_hash"} else TEXT


OK_OR_ERRNO = Gives()
OK_OR_REFUSED = Gives(
    errno=False,
    mappings=(Field("refused", TEXT, "a part of what the agent says when it refuses"),),
)
OK_OR_EXIT = Gives(
    mappings=(
        Field("exit", Number(1, 255), "the program's exit status"),
        Field("signal", Choice(lambda: SIGNALS, "a signal"), "what killed the program"),
    )
)
OK = Gives(errno=False)


@dataclass(frozen=True)
class Verb:
    """What a step can do.

    Attributes:
        name: the step's first key.
        doc: what it does, one sentence.
        value: the field that the verb's value is; or the fields of a value that is a
            mapping.
        gives: what `gives` accepts; None where the step says it in another way.
        example: a step, as YAML on one line.
        text: the step as one would say it, a format string over the arguments of a call.
        options: further keys of the step, which become arguments.
        expects: keys that say what the step must give, beside or instead of `gives`.
            They stand where `value` stands: in the step, or in the verb's mapping.
        calls: whether it is one system call of ours, which a thread can be named for.
        parts: whether there are steps within it; it is then done once.
        check: what the keys ask of each other; raises UsageProblem.
    """

    name: str
    doc: str
    value: Field | tuple[Field, ...]
    gives: Gives | None
    example: str
    text: str
    options: tuple[Field, ...] = ()
    expects: tuple[Field, ...] = ()
    calls: bool = False
    parts: bool = False
    check: Callable[[Decoded, Location], None] | None = None

    @property
    def fields(self) -> tuple[Field, ...]:
        """All fields that become arguments of a call."""
        own = self.value if isinstance(self.value, tuple) else (self.value,)
        return own + self.options

    def say(self, args: dict[str, Any]) -> str:
        """A call as one would say it."""
        shown = {name: " ".join(v) if isinstance(v, list) else v for name, v in args.items()}
        by = f" by {args['by']}" if self.calls and "by" in args else ""
        return self.text.format_map(shown) + by


def _on_path(name: str, doc: str) -> Verb:
    return Verb(
        name,
        doc,
        Field("path", PATH, "what is acted on", required=True),
        OK_OR_ERRNO,
        f"{name}: /run/x",
        f"{name} {{path}}",
        calls=True,
    )


def _check_attach(args: Decoded, _where: Location) -> None:
    """Only programs whose result counts can deny."""
    kind = args.get("kind", ("", None))[0]
    if "denies" in args and kind in {"fentry", "fexit"}:
        what = f"a program of kind {kind} denies nothing"
        hint = "write 'kind: fmod_ret' or 'kind: lsm', or remove 'denies'"
        raise blame(args["denies"][1], what, hint)


_TABLE = (
    Verb(
        "load",
        "The agent loads a policy; with `times`, its instances 1, 2, 3 ….",
        Field("names", NAMES, "of the scenario's policies", required=True),
        OK_OR_REFUSED,
        "load: deny",
        "load {policy[name]}",
    ),
    Verb(
        "unload",
        "The agent unloads a policy. When it says so, the policy acts no more.",
        Field("names", NAMES, "of the scenario's policies", required=True),
        OK_OR_REFUSED,
        "unload: deny",
        "unload {name}",
    ),
    Verb(
        "loaded",
        "The agent has exactly these policies; with `times`, instances 1, 2, 3 … of those"
        " that use `$i`.",
        Field(
            "names",
            Many(PolicyName(), "a list of policies' names", least=0),
            "of the scenario's policies",
            required=True,
        ),
        None,
        "loaded: [a, b]",
        "loaded",
    ),
    Verb(
        "counts",
        "What the agent says became of the calls that a policy matched since it was loaded.",
        (Field("name", PolicyName(), "one of the scenario's policies", required=True),),
        None,
        "counts: {name: deny, matched: 2, denied: 2}",
        "counts of {name}",
        expects=tuple(Field(name, COUNT, f"how many {doc}") for name, doc in CALL_COUNTS.items()),
    ),
    Verb(
        "disable",
        "The agent takes a policy out of effect, and keeps it with its counts.",
        Field("names", NAMES, "of the scenario's policies", required=True),
        OK_OR_REFUSED,
        "disable: deny",
        "disable {name}",
    ),
    Verb(
        "enable",
        "The agent puts a disabled policy into effect again.",
        Field("names", NAMES, "of the scenario's policies", required=True),
        OK_OR_REFUSED,
        "enable: deny",
        "enable {name}",
    ),
    Verb(
        "events",
        "The events that have come for a policy that posts, since the last such step;"
        " what is compared beside `count` has to be the same in all of them.",
        (Field("name", PolicyName(), "one of the scenario's policies", required=True),),
        None,
        "events: {name: deny, count: 2, path: /run/t, override: EPERM}",
        "events of {name}",
        expects=(
            Field("count", COUNT, "how many"),
            Field(
                "hashes",
                TEXT,
                "of each, in the order in which the calls began, the digest or the errno that says"
                " why there is none, with commas between",
            ),
            *(Field(name, _event_form(name), doc) for name, doc in EVENT_KEYS.items()),
        ),
    ),
    Verb(
        "kill",
        "The agent is killed (SIGKILL); what it has pinned stays. Or `held`: the program that a"
        " held `exec` runs is.",
        Field("what", Choice(lambda: ("agent", "held"), "agent or held"), "who", required=True),
        OK_OR_ERRNO,
        "kill: agent",
        "kill {what}",
    ),
    Verb(
        "start",
        "The agent is started, if it does not run; `pinned`, it pins everything, and takes over"
        " what is pinned.",
        Field(
            "how",
            Choice(lambda: ("pinned", "plain"), "pinned or plain"),
            "pinned or plain",
            required=True,
        ),
        OK_OR_REFUSED,
        "start: pinned",
        "start {how}",
    ),
    Verb(
        "mkdir",
        "Makes a directory.",
        Field("path", PATH, "the directory to make", required=True),
        OK_OR_ERRNO,
        "mkdir: /run/x",
        "mkdir {path}",
        options=(Field("mode", Number(0, 0o7777), "its permissions", default=0o755),),
        calls=True,
    ),
    Verb(
        "nest",
        "Makes directories within each other, from outside to inside, each by its name alone, so"
        " that no path is too long; those that are there stay.",
        Field("path", PATH, "the directory to begin in", required=True),
        OK_OR_ERRNO,
        "{nest: /run/x, name: d, depth: 100}",
        "nest {depth} {name} in {path}",
        options=(
            Field("name", TEXT, "of each", required=True),
            Field("depth", Number(1, 2000), "how many", required=True),
        ),
        calls=True,
    ),
    _on_path("rmdir", "Removes an empty directory."),
    _on_path("unlink", "Removes a file."),
    _on_path("touch", "Opens a file for writing, makes it if it is not there, and closes it."),
    Verb(
        "write",
        "Makes a file with this text, anew if it is there: another file under the same name.",
        Field("path", PATH, "the file", required=True),
        OK_OR_ERRNO,
        '{write: /run/x, text: "#!/bin/true", mode: 0o755}',
        "write {path}",
        options=(
            Field("text", Text(least=0), "all of its text", default=""),
            Field(
                "size", Number(0, 2**26), "its bytes, if not the text's: that is repeated, or NULs"
            ),
            Field("mode", Number(0, 0o7777), "its permissions", default=0o644),
        ),
        calls=True,
    ),
    Verb(
        "append",
        "Adds to the end of a file, which stays the same file.",
        Field("path", PATH, "the file", required=True),
        OK_OR_ERRNO,
        '{append: /run/x, text: "# more"}',
        "append to {path}",
        options=(Field("text", TEXT, "what is added", required=True),),
    ),
    Verb(
        "symlink",
        "Makes a symbolic link.",
        Field("path", PATH, "the link to make", required=True),
        OK_OR_ERRNO,
        "symlink: /run/x",
        "symlink {path}",
        options=(Field("target", TEXT, "where it leads", default="target"),),
        calls=True,
    ),
    Verb(
        "symlinkat",
        "Makes a symbolic link by symlinkat(2), where `symlink` takes symlink(2).",
        Field("path", PATH, "the link to make", required=True),
        OK_OR_ERRNO,
        "symlinkat: /run/x",
        "symlinkat {path}",
        options=(
            Field("target", TEXT, "where it leads", default="target"),
            Field(
                "bits",
                Choice(lambda: ("64", "32"), "64 or 32"),
                "64, or 32 to make the call as 32-bit programs do",
                default="64",
            ),
        ),
        calls=True,
    ),
    Verb(
        "rename",
        "Renames a file or directory.",
        Field("path", PATH, "the old name", required=True),
        OK_OR_ERRNO,
        "{rename: /run/x, to: /run/y}",
        "rename {path} to {to}",
        options=(Field("to", PATH, "the new name", required=True),),
        calls=True,
    ),
    Verb(
        "open",
        "Opens a file and closes it.",
        Field("path", PATH, "the file", required=True),
        OK_OR_ERRNO,
        "{open: /run/x, flags: [O_RDWR, O_CREAT]}",
        "open {path}",
        options=(Field("flags", FLAGS, "flags of open(2)", default=("O_RDONLY",)),),
        calls=True,
    ),
    Verb(
        "exec",
        "Runs a program to its end. An errno is that of execve(2).",
        Field(
            "argv", Argv(TEXT, "a path, or a list of words"), "path and arguments", required=True
        ),
        OK_OR_EXIT,
        "exec: [/bin/cat, /run/x]",
        "exec {argv}",
        options=(
            Field(
                "uid",
                Number(0, 2**16 - 2),
                "the user that it runs as, in a group of the next number",
            ),
            Field(
                "via",
                Choice(lambda: ("path", "memfd"), "path or memfd"),
                "path, or memfd to run a copy that is in memory alone and has no path",
                default="path",
            ),
            Field(
                "replaced_by",
                PATH,
                "a file that takes its path when it has been opened, before it is run",
            ),
        ),
        calls=True,
    ),
    Verb(
        "read",
        "Reads a text file whole.",
        Field("path", PATH, "the file", required=True),
        OK_OR_ERRNO,
        "{read: /proc/self/comm, contains: python}",
        "read {path}",
        expects=(
            Field("text", Text(least=0), "all of its text"),
            Field("contains", TEXT, "a part of its text"),
        ),
        calls=True,
    ),
    Verb(
        "mount",
        "Mounts an empty file system that lies in memory, until `unmount`.",
        Field("path", PATH, "the directory to mount on", required=True),
        OK_OR_ERRNO,
        "mount: /run/x",
        "mount on {path}",
        options=(
            Field(
                "lower",
                PATH,
                "a directory: what is mounted is an overlay of it, which has what is changed in a"
                " directory beside it, `.upper` added to its name",
            ),
        ),
    ),
    _on_path("unmount", "Unmounts what was mounted last on a directory."),
    Verb(
        "links",
        "Counts the BPF links on a kernel function, as the kernel lists them.",
        (Field("function", FUNCTION, "the kernel function", required=True),),
        None,
        "links: {function: security_path_mkdir, fmod_ret: 1}",
        "links on {function}",
        expects=tuple(Field(kind, COUNT, f"how many {doc}") for kind, doc in LINK_KINDS.items()),
    ),
    Verb(
        "attach",
        "Attaches a program of somebody else's, which takes a place on the function and lets all"
        " calls pass, or denies some, until `detach` or the scenario's end.",
        Field("function", FUNCTION, "the kernel function", required=True),
        OK_OR_ERRNO,
        "{attach: security_path_mkdir, kind: fexit}",
        "attach {kind} to {function}",
        options=(
            Field(
                "kind",
                Choice(lambda: FOREIGN_KINDS, "a kind of program"),
                f"{', '.join(FOREIGN_KINDS[:-1])} or {FOREIGN_KINDS[-1]}",
                required=True,
            ),
            Field(
                "denies",
                ERRNO,
                "the errno with which it denies: of kind lsm all calls, of kind fmod_ret those of"
                " this process",
            ),
        ),
        check=_check_attach,
    ),
    Verb(
        "detach",
        "Detaches all that `attach` has put on a function.",
        Field("function", FUNCTION, "the kernel function", required=True),
        OK,
        "detach: security_path_mkdir",
        "detach from {function}",
    ),
    Verb(
        "fill",
        "Fills a hash map of the agent's with entries that are about nobody.",
        Field("map", MAP, "the map's name, of which there is one", required=True),
        OK,
        "fill: override_tasks",
        "fill {map}",
        options=(Field("leaves", COUNT, "how many free places it leaves", default=0),),
    ),
    Verb(
        "entries",
        "Counts what is in a hash map of the agent's.",
        (Field("map", MAP, "the map's name, of which there is one", required=True),),
        None,
        "entries: {map: override_tasks, count: 0}",
        "entries of {map}",
        expects=(Field("count", COUNT, "how many"),),
    ),
    Verb(
        "thread",
        "Starts a thread, for `by`. A thread that is named there is started if need be.",
        Field("name", THREAD, "its name", required=True),
        OK_OR_ERRNO,
        "{thread: b, id_of: a}",
        "thread {name}",
        options=(Field("id_of", THREAD, "a thread that ends, and whose id this one gets"),),
    ),
    Verb(
        "hold",
        "Freezes a call at a point, does other steps meanwhile, lets it go, and compares what all"
        " of them gave. A call that never comes to the point is an error of the scenario.",
        Field(
            "point",
            Choice(lambda: POINTS, "a point"),
            "where; see [races.md](races.md)",
            required=True,
        ),
        None,
        "{hold: override, at: security_path_mkdir, call: {mkdir: /run/x, gives: EPERM}}",
        "hold {call} at {point}",
        options=(
            Field("at", FUNCTION, "the kernel function, for the points `function` and `override`"),
            Field("call", OneStep(), "the step that makes the call", required=True),
            Field(
                "denied",
                ERRNO,
                "at `override`: when it is let go another program denies it with this errno,"
                " before the agent's",
            ),
            Field(
                "wakes",
                Choice(lambda: WAKES, "here or elsewhere"),
                "at `hashing`: where it goes on: `here`, or `elsewhere`: it changes its processor"
                " between this program of the chain and the next",
            ),
            Field(
                "meanwhile",
                Meanwhile(),
                "steps that are done while it is held, by others; each may have `returns`",
            ),
        ),
        parts=True,
        check=check_hold,
    ),
    Verb(
        "storm",
        "Does lists of steps again and again for a while, all at the same time, on changing"
        " processors; each step has to give the same every time.",
        Field("branches", Branches(), "lists of steps", required=True),
        None,
        "{storm: [[{mkdir: /run/x}, {rmdir: /run/x}], [{touch: /run/y}]], seconds: 1}",
        "storm of {branches} branches for {seconds} s, seed {seed}",
        options=(
            Field("seconds", Number(1, 3600), "how long", default=1),
            Field("seed", Number(0, 2**31), "what the processors are drawn from", default=1),
        ),
        parts=True,
    ),
)

VERBS: dict[str, Verb] = {verb.name: verb for verb in _TABLE}

#: What every step may have that is one system call.
BY = Field(
    "by",
    THREAD,
    "of steps that are a system call of ours: the thread that makes it, started if need be",
)

#: What every step may have.
TIMES = Field(
    "times",
    Repeats(1, MOST_TIMES),
    "how often the step is done, `$i` counting from 1; a number or a sum such as `$n+1`",
    default=1,
)

#: What a step may have that is done while a call is held.
RETURNING = Field(
    "returns",
    Choice(lambda: RETURNS, "during, after or either"),
    "of steps in `meanwhile`: whether it ends `during` the hold, `after` it and not before, or"
    " `either`",
    default="during",
)
