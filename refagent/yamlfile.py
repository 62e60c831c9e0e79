# SPDX-License-Identifier: Apache-2.0
"""Plain YAML → a tree (`refagent.yamltree`), and nothing more.

The parser's events are turned into nodes without giving a single scalar a type. Reading
events in a loop also bounds depth before anything can recurse, and sees what our files may
not have: anchors, aliases, tags, merge keys, a second document.

Policies are read with it here, scenarios in `hookproof`. The parser is imported when a file
is read: where the agent runs, there may be none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from refagent.errors import BadFile
from refagent.yamltree import Location, Mapping, Node, Scalar, Sequence, blame

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 256 * 1024
MAX_DEPTH = 16

#: What YAML 1.2 (section 5.1) does not allow in a stream, and byte order marks inside it.
_UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)


@dataclass(frozen=True, slots=True)
class Wording:
    """What messages call a kind of file.

    Attributes:
        thing: what it describes, as in `nothing in a scenario needs that`.
        holds: how much of that, as in `a file is one scenario`.
        begin: the next step where it is empty.
        repeat: the next step where somebody wants to repeat with an anchor.
    """

    thing: str
    holds: str
    begin: str
    repeat: str


def read(path: Path, shown: str, words: Wording) -> Node:
    """Reads a file that holds one YAML document.

    Args:
        path: the file.
        shown: how messages call it.
        words: what messages call its kind.

    Raises:
        BadFile: not readable, too large, not UTF-8, not YAML, or more than the
            plain YAML the module's text promises.
    """
    start = Location(shown, 1, 1)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadFile(f"cannot be read: {error.strerror}", where=shown) from None
    if len(raw) > MAX_BYTES:
        limit = f"is larger than {MAX_BYTES // 1024} KiB"
        raise blame(start, limit, f"split it: a file is {words.holds}")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8")
        raise blame(_after(shown, before), "is not UTF-8", "save the file as UTF-8") from None
    if odd := _UNPRINTABLE.search(text):
        what = f"the character U+{ord(odd.group()):04X} cannot stand here"
        raise blame(_after(shown, text[: odd.start()]), what, "remove it")
    return _Builder(shown, text, words).document()


def _after(shown: str, text: str) -> Location:
    """The place that follows `text`, which begins the file."""
    return Location(shown, text.count("\n") + 1, len(text) - text.rfind("\n"))


class _Builder:
    """Puts the parser's events together; the stack is a list, not Python's own."""

    def __init__(self, shown: str, text: str, words: Wording) -> None:
        self._shown = shown
        self._text = text
        self._words = words

    def document(self) -> Node:
        documents = 0
        root: Node | None = None
        stack: list[_Open] = []
        for kind, event in self._events():
            if kind == "DocumentStart":
                documents += 1
                if documents > 1:
                    where = self._where(event.start_mark)
                    hint = f"a file is {self._words.holds}: move it to a file of its own"
                    raise blame(where, "a second document begins here", hint)
                continue
            if kind not in _NODES:
                continue
            if kind == "Alias":
                where = self._where(event.start_mark)
                what = f"the alias '*{event.anchor}' cannot stand here"
                raise blame(where, what, self._words.repeat)
            if kind in {"SequenceStart", "MappingStart"}:
                self._refuse_extras(event)
                where = self._where(event.start_mark)
                stack.append(_Open(where, kind == "MappingStart", self._words))
                if len(stack) > MAX_DEPTH:
                    what = f"nests deeper than {MAX_DEPTH} levels"
                    raise blame(where, what, f"nothing in a {self._words.thing} needs that")
                continue
            node = self._scalar(event) if kind == "Scalar" else stack.pop().close()
            if stack:
                stack[-1].add(node)
            else:
                root = node
        if root is None or (isinstance(root, Scalar) and not root.text and root.plain):
            raise blame(Location(self._shown, 1, 1), "the file is empty", self._words.begin)
        return root

    def _events(self) -> Iterator[tuple[str, Any]]:
        import yaml

        loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
        try:
            for event in yaml.parse(self._text, Loader=loader):
                yield type(event).__name__.removesuffix("Event"), event
        except yaml.MarkedYAMLError as error:
            self._explain(error)

    def _explain(self, error: yaml.MarkedYAMLError) -> NoReturn:
        """The parser's complaint in one line; what it calls a token, people call a tab."""
        where = self._where(error.problem_mark or error.context_mark)
        line = (self._text.splitlines() or [""])[where.line - 1 : where.line]
        rest = line[0][where.column - 1 :] if line else ""
        if rest.startswith("\t"):
            raise blame(where, "a tab cannot indent", "use spaces") from None
        if rest[:1] in {"@", "`", "%"} and where.column > 1:
            raise blame(where, f"a value cannot begin with '{rest[0]}'", "quote it") from None
        problem = error.problem or "it ends too soon"
        if problem.startswith("mapping values are not allowed"):
            what = "a ':' begins a value here, in the middle of one"
            raise blame(where, what, "quote the text, or check the indent") from None
        context = ""
        if error.context and error.context_mark:
            context = f" {error.context} that begins on line {error.context_mark.line + 1}"
        raise blame(where, f"this is not YAML: {problem}{context}", _CHECK) from None

    def _scalar(self, event: yaml.ScalarEvent) -> Scalar:
        self._refuse_extras(event)
        plain = event.style is None or event.style == ""
        return Scalar(self._where(event.start_mark), event.value, plain)

    def _refuse_extras(self, event: yaml.NodeEvent) -> None:
        where = self._where(event.start_mark)
        if event.anchor is not None:
            what = f"the anchor '&{event.anchor}' cannot stand here"
            raise blame(where, what, self._words.repeat)
        if getattr(event, "tag", None) is not None:
            what = "a tag ('!…') cannot stand here"
            raise blame(where, what, "leave it out: each key declares the type of its value")

    def _where(self, mark: Any) -> Location:
        return Location(self._shown, mark.line + 1, mark.column + 1)


_NODES = {"Scalar", "SequenceStart", "SequenceEnd", "MappingStart", "MappingEnd", "Alias"}
_CHECK = "check colons, quotes and indents"


class _Open:
    """A list or mapping whose end has not come yet."""

    def __init__(self, where: Location, mapping: bool, words: Wording) -> None:
        self.where = where
        self._words = words
        self._mapping = mapping
        self._items: list[Node] = []
        self._pairs: list[tuple[Scalar, Node]] = []
        self._keys: dict[str, Location] = {}
        self._key: Scalar | None = None

    def add(self, node: Node) -> None:
        if not self._mapping:
            self._items.append(node)
        elif self._key is None:
            self._key = self._new_key(node)
        else:
            self._pairs.append((self._key, node))
            self._key = None

    def close(self) -> Node:
        if self._mapping:
            return Mapping(self.where, tuple(self._pairs))
        return Sequence(self.where, tuple(self._items))

    def _new_key(self, node: Node) -> Scalar:
        if not isinstance(node, Scalar):
            raise blame(node.where, "a key must be a word, not a list or a mapping")
        if node.text == "<<" and node.plain:
            what = "a merge key ('<<') cannot stand here"
            raise blame(node.where, what, self._words.repeat)
        if first := self._keys.get(node.text):
            what = f"'{node.text}' stands here twice, first on line {first.line}"
            raise blame(node.where, what, "keep one of them")
        self._keys[node.text] = node.where
        return node
