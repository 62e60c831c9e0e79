# SPDX-License-Identifier: Apache-2.0
"""The matrix as a page of its own: no script, nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from html import escape
from typing import Final

from hookproof.mutants.matrix import CONTROL, Cell, Matrix, Result
from hookproof.mutants.patch import Mutant

#: Result → the cell's class and its sign.
_LOOK: Final = {
    Result.KILLED: ("killed", "✕"),
    Result.PASSED: ("passed", "·"),
    Result.SKIPPED: ("skipped", "-"),
    Result.ERROR: ("error", "!"),
}
_STYLE: Final = """
:root { color-scheme: light dark; --line: #8883; --dim: #8889; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 78rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2.5rem 0 .5rem; }
p.sum { color: var(--dim); margin: .2rem 0 1rem; }
ul.findings { border-left: 4px solid #d33; margin: 1rem 0; padding: .5rem 1rem .5rem 2rem; }
p.fine { border-left: 4px solid #2a8; padding: .5rem 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; }
table.grid td, table.grid th { border: 1px solid var(--line); padding: 0; }
table.grid thead th { height: 12.5rem; vertical-align: bottom; font-weight: 400; border: 0; }
table.grid thead th div { width: 1.55rem; white-space: nowrap;
  transform: translate(.7rem, -.3rem) rotate(-60deg); transform-origin: bottom left; }
table.grid tbody th { text-align: left; font-weight: 400; padding: 0 .8rem 0 .3rem;
  white-space: nowrap; position: sticky; left: 0; background: Canvas; }
table.grid td { width: 1.5rem; height: 1.5rem; text-align: center; line-height: 1; }
table.grid tr:hover :is(td, th) { background-color: color-mix(in srgb, #58f 14%, Canvas); }
table.grid td.killed, .key .killed { background-color: #c33; color: #fff; }
td.named.passed { outline: 2px solid #c33; outline-offset: -2px; }
td.named { font-weight: 700; } td.passed { color: var(--dim); } td.skipped { color: var(--dim); }
table.grid td.error, .key .error { background-color: #e90; color: #000; }
.key span { display: inline-block; width: 1.4rem; text-align: center; margin: 0 .3rem 0 1rem; }
table.list td, table.list th { border-bottom: 1px solid var(--line); padding: .35rem .8rem .35rem 0;
  text-align: left; vertical-align: top; }
.word { white-space: nowrap; } .word.killed { color: #2a8; } .word.survived { color: #d33; }
.word.error { color: #c70; } code { font-size: .92em; }
"""


def page(matrix: Matrix, summary: str, started: datetime) -> str:
    """The text of mutants.html."""
    return "\n".join([*_page(matrix, summary, started), ""])


def _page(matrix: Matrix, summary: str, started: datetime) -> Iterator[str]:
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8"><title>hookproof: mutants</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>{_STYLE}</style></head><body>"
    yield "<h1>Scenarios &times; mutants</h1>"
    yield f'<p class="sum">{escape(summary)}, begun {started:%Y-%m-%d %H:%M %Z}. A mutant is the '
    yield "reference agent with a known bug; the scenarios that its header names have to fail.</p>"
    findings = matrix.findings()
    if findings:
        yield '<ul class="findings">'
        yield from (f"<li>{escape(line)}</li>" for line in findings)
        yield "</ul>"
    else:
        yield '<p class="fine">Each mutant was caught by all scenarios that are said to.</p>'
    yield '<p class="key"><span class="killed">✕</span>the scenario failed'
    yield "<span>·</span>it passed<span>-</span>the kernel can't"
    yield '<span class="error">!</span>no verdict<span></span>empty: not tried</p>'
    for kernel in matrix.kernels:
        yield f"<h2>{escape(kernel)}</h2>"
        yield from _grid(matrix, kernel)
    yield "<h2>The mutants</h2>"
    yield from _list(matrix)
    yield "</body></html>"


def _grid(matrix: Matrix, kernel: str) -> Iterator[str]:
    cells = {(cell.scenario, cell.mutant): cell for cell in matrix.cells if cell.kernel == kernel}
    mutants = [each for each in matrix.mutants if matrix.of(each.name) and each.shows_on(kernel)]
    tests = sorted({scenario for scenario, _ in cells} - matrix.scenarios.keys())
    names = [name for name in matrix.scenarios if any(name == scenario for scenario, _ in cells)]
    yield '<div class="scroll"><table class="grid"><thead><tr><th></th>'
    for mutant in ("without a mutant", *(each.name for each in mutants)):
        yield f"<th><div>{escape(mutant)}</div></th>"
    yield "</tr></thead><tbody>"
    for name in (*names, *tests):
        about = escape(matrix.scenarios[name].about if name in matrix.scenarios else "")
        yield f'<tr><th title="{about}">{escape(name)}</th>'
        yield _cell(cells.get((name, CONTROL)), named=False)
        yield from (
            _cell(cells.get((name, each.name)), named=name in each.killers) for each in mutants
        )
        yield "</tr>"
    yield "</tbody></table></div>"


def _cell(cell: Cell | None, *, named: bool) -> str:
    if cell is None:
        return "<td></td>"
    look, sign = _LOOK[cell.result]
    words = f"{cell.mutant or 'without a mutant'}: {cell.case}: {cell.reason or cell.outcome}"
    return f'<td class="{look}{" named" if named else ""}" title="{escape(words)}">{sign}</td>'


def _list(matrix: Matrix) -> Iterator[str]:
    yield '<table class="list"><tr><th>mutant</th><th>the bug</th><th>caught by</th><th></th></tr>'
    for mutant in matrix.mutants:
        word = matrix.verdict(mutant)
        look = "error" if word == "suite error" else word
        yield f"<tr><td><code>{escape(mutant.name)}</code></td>"
        yield f"<td>{escape(mutant.bug)}<br>{_seen(mutant)}</td>"
        yield f"<td>{'<br>'.join(map(escape, mutant.killers))}</td>"
        yield f'<td class="word {look}">{word}</td></tr>'
    yield "</table>"


def _seen(mutant: Mutant) -> str:
    seen = escape(mutant.seen)
    return f'<a href="{seen}">{seen}</a>' if mutant.seen.startswith("https://") else seen
