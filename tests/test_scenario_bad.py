# SPDX-License-Identifier: Apache-2.0
"""Each mistake in a scenario is one line that says where and what was meant.

`tests/bad/NAME.yaml` holds the mistake and `NAME.txt` the line.
"""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hookproof.decode import read_scenario
from refagent.yamlfile import MAX_BYTES
from vm.errors import UsageProblem

BAD = sorted(Path(__file__).parent.glob("bad/*.yaml"))
STEPS = "steps:\n  - mkdir: /run/t/x\n"


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_mistake_is_one_precise_line(path: Path) -> None:
    assert f"{complaint(path)}\n" == path.with_suffix(".txt").read_text(encoding="utf-8")


def test_every_golden_text_has_its_file() -> None:
    texts = {path.stem for path in Path(__file__).parent.glob("bad/*.txt")}
    assert texts == {path.stem for path in BAD}


def complaint(path: Path) -> str:
    try:
        read_scenario(path, path.name)
    except UsageProblem as problem:
        return str(problem)
    return ""


def test_huge_file_is_refused_without_reading_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert complaint(path) == (
        f"huge.yaml:1:1: is larger than {MAX_BYTES // 1024} KiB; split it: a file is one scenario"
    )


def test_bottomless_nesting_is_refused_before_anything_recurses(tmp_path: Path) -> None:
    path = tmp_path / "deep.yaml"
    path.write_text("a: " + "[" * 100_000)
    assert "nests deeper than 16 levels" in complaint(path)


def test_largest_file_that_is_read_still_has_its_mistake_found(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    text = f"about: Large.\n{STEPS}"
    line = "  - mkdir: /run/t/y\n"
    text += line * ((MAX_BYTES - len(text) - 20) // len(line)) + "  - mkdri: /x\n"
    path.write_text(text)
    assert f"large.yaml:{len(text.splitlines())}:5: there is no verb 'mkdri'" in complaint(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    assert (
        complaint(tmp_path / "gone.yaml") == "gone.yaml: cannot be read: No such file or directory"
    )
    assert complaint(tmp_path / "folder.yaml") == "folder.yaml: cannot be read: Is a directory"


@pytest.mark.parametrize(
    "name", ["a b.yaml", "-x.yaml", "x-.yaml", "x.y.yaml", ".yaml", "X.yaml", "x.yml"]
)
def test_stem_must_be_a_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(f"about: Fine.\n{STEPS}")
    assert "is no name for a scenario" in complaint(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any")


#: Pieces of scenarios in any order find more than characters do.
PIECES = st.sampled_from(
    [
        "about: a",
        "params:",
        "policies:",
        "steps:",
        "boot: ",
        "needs: ",
        "n",
        "x: ",
        "- ",
        ": ",
        ", ",
        "mkdir: /x",
        "load: ",
        "times: ",
        "gives: ",
        "links: ",
        "exec: ",
        "{",
        "}",
        "[",
        "]",
        "'",
        '"',
        "\n",
        "\n  ",
        "\n    ",
        "\t",
        "$i",
        "$n",
        "$",
        "${",
        "limit+1",
        "- 1",
        "0o7",
        "#",
        "|",
        ">",
        "?",
        "&a",
        "*a",
        "!!x",
        "<<: ",
        "---",
        "...",
        "%YAML 1.1",
        "@",
        "\ufeff",
        "\u2028",
        "\x85",
        "\\",
        "ok",
    ]
)


@given(st.one_of(st.lists(PIECES, max_size=30).map("".join), st.text()))
@example("about: a\nx: \ufeff")
@example("about: a\nparams: {n: [$$]}")
def test_any_text_is_a_scenario_or_one_line(folder: Path, text: str) -> None:
    path = folder / "any.yaml"
    path.write_bytes(text.encode("utf-8", "replace"))
    line = complaint(path)
    assert not line or line.startswith("any.yaml:")
    assert not line or line.isprintable()
