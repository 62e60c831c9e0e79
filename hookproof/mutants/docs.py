# SPDX-License-Identifier: Apache-2.0
"""What of the documentation is generated from the mutants' headers.

`python -m hookproof.mutants.docs` rewrites it in the checkout; a test fails while it differs.
That the headers are true is what `hookproof mutants` finds out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from hookproof.mutants import build, patch
from hookproof.mutants.patch import Mutant
from hookproof.mutants.session import read_scenarios
from hookproof.scenario import Scenario

FILES: Final = ("README.md", "docs/mutants.md")
_BLOCK: Final = re.compile(r"(<!-- generated: (mutants[\w-]*) -->\n).*?(<!-- end -->)", re.DOTALL)


def texts(root: Path) -> dict[Path, str]:
    """Each file with its generated blocks made anew."""
    mutants, scenarios = patch.read_all(root / "mutants"), read_scenarios(root / "scenarios")

    def made(block: re.Match[str]) -> str:
        return f"{block[1]}{_BLOCKS[block[2]](mutants, scenarios)}{block[3]}"

    paths = [root / name for name in FILES]
    return {path: _BLOCK.sub(made, path.read_text(encoding="utf-8")) for path in paths}


def _rooms(mutants: Sequence[Mutant], scenarios: Mapping[str, Scenario]) -> str:
    """A row for each folder of scenarios."""
    lines = ["| scenarios | | mutants that they catch | about the kernel alone |\n"]
    lines.append("|---|---|---|---|\n")
    for room in sorted({name.rpartition("/")[0] for name in scenarios}):
        inside = {name for name in scenarios if name.rpartition("/")[0] == room}
        caught = sum(not inside.isdisjoint(mutant.killed_by) for mutant in mutants)
        alone = sum(bool(scenarios[name].no_mutant) for name in inside)
        lines.append(f"| {room}/ | {len(inside)} | {caught} of {len(mutants)} | {alone or ''} |\n")
    return "".join(lines)


def _all(mutants: Sequence[Mutant], _scenarios: Mapping[str, Scenario]) -> str:
    """A row for each mutant."""
    lines = ["| mutant | the bug | caught by |\n|---|---|---|\n"]
    for mutant in mutants:
        link = mutant.seen.startswith("https://")
        seen = f"[seen]({mutant.seen})" if link else mutant.seen
        where = "" if mutant.kernels == ("*",) else f" on {' '.join(mutant.kernels)}"
        caught = f"{', '.join(mutant.killers)}{where}".replace("*", "\\*")
        lines.append(f"| `{mutant.name}` | {mutant.bug} ({seen}) | {caught} |\n")
    return "".join(lines)


_BLOCKS: Final[Mapping[str, Callable[[Sequence[Mutant], Mapping[str, Scenario]], str]]] = {
    "mutants": _rooms,
    "mutants-all": _all,
}


def main() -> None:
    """Rewrites the files."""
    for path, text in texts(build.checkout()).items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
