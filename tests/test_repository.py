# SPDX-License-Identifier: Apache-2.0
"""The repository's own rules, held for every file that git knows."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
#: Texts whose bytes are their point, and licenses.
VERBATIM = ("mutants/*", "tests/bad/*", "tests/splats/*", "LICENSE", "LICENSES/*")


def tracked() -> list[str]:
    """The files of the repository, as git lists them; links are left out."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = [name for name in listed.stdout.split("\0") if (ROOT / name).is_file()]
    return [name for name in names if not (ROOT / name).is_symlink()]


FILES = tracked()
WHOLE = {str(ROOT / name) for name in FILES}
TEXTS = [name for name in FILES if not any(fnmatch(name, one) for one in VERBATIM)]


def text(name: str) -> str:
    return (ROOT / name).read_bytes().decode(errors="surrogateescape")


def matching(pattern: re.Pattern[str], names: list[str]) -> list[str]:
    """`FILE:LINE: text` for each line in which the pattern is found."""
    return [
        f"{name}:{number}: {line.strip()}"
        for name in names
        for number, line in enumerate(text(name).splitlines(), 1)
        if pattern.search(line)
    ]


def test_links_lead_to_files_of_the_repository() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-s", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    links = [each.partition("\t")[2] for each in listed.stdout.split("\0") if each[:3] == "120"]
    assert [name for name in links if str((ROOT / name).resolve()) not in WHOLE] == []


def test_every_file_names_its_license() -> None:
    annotated = tomllib.loads(text("REUSE.toml"))["annotations"]
    paths = [
        path.replace("**/", "*").replace("**", "*") for one in annotated for path in one["path"]
    ]
    unnamed = []
    for name in FILES:
        if name.startswith("LICENSE") or any(fnmatch(name, path) for path in paths):
            continue
        license_line = "(GPL-2.0-only OR BSD-2-Clause)" if name.startswith("bpf/") else "Apache-2.0"
        head = text(name).splitlines()[:2]
        if not any(f"SPDX-License-Identifier: {license_line}" in line for line in head):
            unnamed.append(name)
    assert not unnamed, "\n".join(unnamed)


def test_license_texts_are_there() -> None:
    for name in ("LICENSE", "LICENSES/GPL-2.0-only.txt", "LICENSES/BSD-2-Clause.txt"):
        assert len(text(name).splitlines()) > 20


def test_lines_are_clean() -> None:
    wrong = []
    for name in TEXTS:
        content = (ROOT / name).read_bytes().decode()  # or it is not UTF-8
        if content and not content.endswith("\n"):
            wrong.append(f"{name}: no newline at its end")
        if "\r" in content:
            wrong.append(f"{name}: has a carriage return")
        if content.endswith("\n\n"):
            wrong.append(f"{name}: empty lines at its end")
    wrong += matching(re.compile(r"[ \t]+$"), TEXTS)
    assert not wrong, "\n".join(wrong)


def test_no_registry_is_named() -> None:
    # Put together here, so that this file does not name them either.
    parts = (
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("snapshot", "debian", "org"),
        ("ftp", "debian", "org"),
        ("archive", "ubuntu", "com"),
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
    )
    hosts = "|".join(re.escape(".".join(host)) for host in parts)
    assert matching(re.compile(hosts), FILES) == []


def test_no_place_of_one_persons_machine_is_named() -> None:
    # The user called "me" stands for anybody.
    places = "|".join(
        ("/ho" + "me/(?!me/)[a-z]", "/Us" + "ers/[a-z]", "/ro" + r"ot/\.", "/wo" + "rk/")
    )
    assert matching(re.compile(rf"(?<![\w$}}.])(?:{places})"), FILES) == []


def test_nothing_is_left_to_do() -> None:
    words = "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X"))
    assert matching(re.compile(rf"\b(?:{words})\b"), TEXTS) == []


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [("vm", {"hookproof", "refagent"}), ("refagent", {"hookproof", "vm"})],
)
def test_arrows_go_one_way(package: str, forbidden: set[str]) -> None:
    wrong = []
    for name in FILES:
        if not (name.startswith(f"{package}/") and name.endswith(".py")):
            continue
        for node in ast.walk(ast.parse(text(name))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            wrong += [f"{name}: {one}" for one in modules if one.split(".")[0] in forbidden]
    assert wrong == []


def test_programs_of_the_host_are_given_a_copy_of_the_variables() -> None:
    # See run.environment: without one, a start fails now and then.
    starts = {"Popen", "call", "check_call", "check_output", "run"}
    found, wrong = 0, []
    for name in FILES:
        if not name.startswith(("vm/", "hookproof/")) or not name.endswith(".py"):
            continue
        for node in ast.walk(ast.parse(text(name))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner, what = ast.unparse(node.func.value), node.func.attr
            if owner == "subprocess" and what in starts:
                found += 1
                given = {keyword.arg for keyword in node.keywords}
                wrong += [] if "env" in given else [f"{name}:{node.lineno}"]
    assert found
    assert wrong == []


def test_the_lock_has_every_dependency_within_its_range() -> None:
    project = tomllib.loads(text("pyproject.toml"))["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    pinned = dict(re.findall(r"^([\w.-]+)==([\w.]+)", text("requirements.lock"), re.MULTILINE))
    for requirement in map(Requirement, wanted):
        name = requirement.name.lower().replace("_", "-")
        assert name in pinned, f"{name} is not locked: run `make lock`"
        assert requirement.specifier.contains(pinned[name]), f"{name}: run `make lock`"


def test_every_locked_package_has_hashes() -> None:
    entries = re.split(r"^(?=\w)", text("requirements.lock"), flags=re.MULTILINE)[1:]
    assert len(entries) > 20
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


def test_the_readme_begins_with_the_two_commands() -> None:
    commands = re.findall(r"^    (make \w+)", text("README.md"), re.MULTILINE)
    assert commands[:2] == ["make matrix", "make test"]
    assert "make test" in text(".ci/run")


def test_links_between_documents_lead_somewhere() -> None:
    links = [
        (name, target)
        for name in FILES
        if name.endswith(".md")
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text(name))
    ]
    assert links
    assert [link for link in links if not (ROOT / link[0]).parent.joinpath(link[1]).exists()] == []
