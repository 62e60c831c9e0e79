# SPDX-License-Identifier: Apache-2.0
"""The package as pip installs it from a checkout, and its plugin in somebody else's repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.test_repository import FILES, ROOT
from vm import catalog
from vm.default import default_catalog

PACKAGES = ("hookproof", "refagent", "vm")
#: Sources from which the wheel's compiled module is built.
BUILT_FROM = {"refagent/libbpf/api.cdef.h", "refagent/libbpf/shim.c"}
SCENARIO = """\
about: A directory can be made where no policy says otherwise.
steps:
  - mkdir: /run/t/x
"""


@dataclass(frozen=True)
class Foreign:
    """A repository that is not ours, with hookproof installed from a wheel.

    Attributes:
        wheel: the wheel.
        python: of an environment that has it, and our dependencies from where we run.
        root: the repository; it has a folder `scenarios` and nothing else.
    """

    wheel: Path
    python: Path
    root: Path

    def run(self, *words: str, status: int = 0) -> str:
        """Runs this Python in the repository; what it said, if it ended with this status."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if "PYTEST" not in name and name != "PYTHONPATH"
        }
        done = subprocess.run(
            [self.python, "-P", *words],
            cwd=self.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stdout
        return done.stdout


KNOWN = catalog.read(default_catalog())


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Foreign:
    """Builds the wheel from the files that git knows, and installs it."""
    top = tmp_path_factory.mktemp("foreign")
    source = top / "source"
    for name in FILES:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check"]
    flags = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "wheel", *flags, "--wheel-dir", top, source], check=True)
    wheel = next(top.glob("hookproof-*.whl"))
    venv.create(top / "venv")
    python = top / "venv/bin/python"
    subprocess.run(
        [*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True
    )
    site = next(top.glob("venv/lib/*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    # A program of theirs that ours looks for beside its Python.
    python.with_name("virtme-run").symlink_to(Path(sys.prefix) / "bin/virtme-run")
    scenarios = top / "theirs/scenarios"
    scenarios.mkdir(parents=True)
    (scenarios / "mkdir.yaml").write_text(SCENARIO)
    return Foreign(wheel, python, scenarios.parent)


def test_the_wheel_has_the_packages_with_all_that_they_read(foreign: Foreign) -> None:
    inside = set(zipfile.ZipFile(foreign.wheel).namelist())
    wanted = {name for name in FILES if name.split("/")[0] in PACKAGES and "/." not in name}
    wanted -= BUILT_FROM
    wanted |= {"vm/kernels.txt", "vm/kernels.lock"}
    programs = [Path(name).name for name in FILES if name.endswith(".bpf.c")]
    wanted |= {f"refagent/objects/{Path(name).stem}.o" for name in programs}
    assert programs
    assert wanted - inside == set()
    assert [
        name for name in inside if name.startswith("refagent/libbpf/_libbpf.") and ".so" in name
    ]


def test_the_wheel_has_nothing_else(foreign: Foreign) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(foreign.wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


def test_the_installed_package_is_what_runs(foreign: Foreign) -> None:
    code = (
        "import hookproof, refagent.libbpf._libbpf as binding; from vm import catalog, default;"
        "print(hookproof.__file__, binding.__file__, default.default_catalog());"
        "print(len(catalog.read(default.default_catalog())), default.default_lock().is_file())"
    )
    first, second = foreign.run("-c", code).splitlines()
    site = str(foreign.python.parent.parent)
    assert all(path.startswith(site) for path in first.split())
    assert second == f"{len(KNOWN)} True"


def test_the_plugin_collects_another_repositorys_scenarios(foreign: Foreign) -> None:
    listed = foreign.run("-m", "pytest", "scenarios", "--kernel", "7.*", "--collect-only", "-q")
    names = [line for line in listed.splitlines() if "::" in line]
    assert names[0] == "scenarios/mkdir.yaml::mkdir[7.0]"
    assert len(names) == len(catalog.select(KNOWN, ["7.*"])) > 1


def test_its_own_list_of_kernels_takes_the_place_of_ours(foreign: Foreign) -> None:
    own = foreign.root / "kernels.txt"
    own.write_text("mine debian:trixie/6.12.*\n")
    try:
        listed = foreign.run("-m", "pytest", "scenarios", "--collect-only", "-q")
    finally:
        own.unlink()
    assert "scenarios/mkdir.yaml::mkdir[mine]" in listed.splitlines()


def test_the_command_works_from_there(foreign: Foreign) -> None:
    script = str(foreign.python.with_name("hookproof"))
    listed = foreign.run(script, "run", "--list", "--kernel", "5.10")
    assert "scenarios/mkdir.yaml::mkdir[5.10]" in listed.splitlines()


@pytest.mark.vm
def test_the_plugin_runs_them(foreign: Foreign) -> None:
    said = foreign.run("-m", "pytest", "scenarios", "--kernel", "6.12")
    assert "1 passed" in said
    assert (foreign.root / "results/junit.xml").is_file()
