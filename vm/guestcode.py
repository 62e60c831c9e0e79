# SPDX-License-Identifier: Apache-2.0
"""Compiles Python sources for a guest; run as a program, in an interpreter of its own.

What marshal writes depends on which strings and constants the process happens to share
(CPython issue 78274), so that only a fresh process with a fixed hash seed gives the same bytes
each time. The name of the guest's file is what tracebacks say: file, line and function are
there, the text of the line is in the repository.

    python guestcode.py LIST OUT      LIST is JSON [[source file, file in the guest], …];
                                      OUT will be a marshalled list of the .pyc files' bytes
"""

from __future__ import annotations

import importlib.util
import json
import marshal
import sys

#: The flags, time and size of a .pyc file that has no source to be compared with.
_HEADER = importlib.util.MAGIC_NUMBER + bytes(12)


def main() -> None:
    """Exits with a line that says where, if a source is wrong."""
    with open(sys.argv[1], encoding="utf-8") as file:  # noqa: PTH123  pathlib costs an import
        sources = json.load(file)
    compiled = []
    for source, place in sources:
        try:
            with open(source, "rb") as file:  # noqa: PTH123
                code = compile(file.read(), place, "exec", dont_inherit=True, optimize=0)
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", 0) or 0
            sys.exit(f"{source}:{line}: {getattr(error, 'msg', error)}")
        compiled.append(_HEADER + marshal.dumps(code))
    with open(sys.argv[2], "wb") as out:  # noqa: PTH123
        marshal.dump(compiled, out)


if __name__ == "__main__":
    main()
