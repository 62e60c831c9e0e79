# SPDX-License-Identifier: Apache-2.0
"""Guest roots: what is in them runs there, names nothing of the host, and comes out the same."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import initramfs
from tests.initramfs import Member
from vm import guestroot, store
from vm.errors import HostProblem, UsageProblem
from vm.guestroot import Contents, GuestRoot

REPOSITORY = Path(__file__).resolve().parents[1]
CONTENTS = Contents(("hookproof.guest", "refagent", "_cffi_backend"), ("true",))
SITE = guestroot.SITE[1:]
LIBRARY = f"usr/{sys.platlibdir}/python3.{sys.version_info[1]}"
#: Makes a root in the cache named by the environment, and says its digest.
MAKE = f"""
from vm import guestroot
print(guestroot.ensure(guestroot.{CONTENTS!r}, lambda _: None).digest)
"""
ENTER = """
import os, sys
os.chroot(sys.argv[1])
os.chdir("/")
os.execve(sys.argv[2], sys.argv[2:], {"PYTHONPATH": "/usr/lib/hookproof", "PATH": "/bin"})
"""


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for all tests here: each root in it begins with the same Python."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _in_the_cache(roots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOKPROOF_CACHE", str(roots))


@pytest.fixture
def root() -> GuestRoot:
    return guestroot.ensure(CONTENTS, print)


@pytest.fixture
def members(root: GuestRoot) -> dict[str, Member]:
    return initramfs.read(root.path.read_bytes())


@pytest.fixture(scope="module")
def laid_out(roots: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root as files, for a process to be put into."""
    if os.geteuid():
        pytest.skip("only root may run chroot")
    folder = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOOKPROOF_CACHE", str(roots))
        archive = guestroot.ensure(CONTENTS, print).path.read_bytes()
    initramfs.lay_out(initramfs.read(archive), folder)
    return folder


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that can be imported."""
    folder = tmp_path / "packed_by_a_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("VALUE = 1\n")
    (folder / "table.json").write_text("{}\n")
    (folder / "half.c").write_text("int x;\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def inside(laid_out: Path, *argv: str) -> str:
    command = [sys.executable, "-c", ENTER, str(laid_out), *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def python(laid_out: Path, script: str) -> str:
    return inside(laid_out, guestroot.PYTHON, "-S", "-c", script)


def test_the_executor_and_the_agent_can_be_imported(laid_out: Path) -> None:
    script = """
import sys
from hookproof.guest import agents, census, executor, steps
from refagent import probes, serve
from refagent.libbpf import btf
mine = {name.partition(".")[0] for name in sys.modules} & {"hookproof", "refagent", "vm"}
print(sorted(mine), sys.path[1:], sys.version)
"""
    zipped = LIBRARY.replace(".", "") + ".zip"
    path = [f"/{each}" for each in (SITE, zipped, LIBRARY, f"{LIBRARY}/lib-dynload")]
    said = python(laid_out, script)
    assert said == f"['hookproof', 'refagent'] {path} {sys.version}\n"


def test_extension_modules_find_their_libraries(laid_out: Path) -> None:
    modules = sorted((laid_out / LIBRARY / "lib-dynload").iterdir())
    names = [module.name.partition(".")[0] for module in modules]
    assert {"_ctypes", "_struct", "select"} <= {*names, *sys.builtin_module_names}
    assert "_tkinter" not in names
    python(laid_out, "".join(f"import {name}\n" for name in names))


def test_a_thread_may_end_early(laid_out: Path) -> None:
    # The C library opens libgcc_s by name to unwind it, and aborts where there is none.
    script = "import ctypes, threading; libc = ctypes.CDLL(None)\n"
    script += "thread = threading.Thread(target=libc.pthread_exit, args=(None,))\n"
    script += "thread.start(); thread.join(0.1)\nimport os; print('alive', flush=True); os._exit(0)"
    assert python(laid_out, script) == "alive\n"


def test_a_traceback_names_the_guests_file_and_line(laid_out: Path) -> None:
    script = """
import traceback
from hookproof.guest import steps
try:
    steps.act("nonsense", {})
except Exception:
    traceback.print_exc(file=__import__("sys").stdout)
"""
    assert f'File "{guestroot.SITE}/hookproof/guest/steps.py", line ' in python(laid_out, script)


def test_the_shell_has_its_tools(laid_out: Path) -> None:
    said = inside(laid_out, "/bin/sh", "-c", "id -u; basename /a/b; true && echo true; ls /modules")
    assert said == "0\nb\ntrue\n"


def test_programs_take_the_place_of_applets(members: dict[str, Member]) -> None:
    busybox, mine = members["usr/bin/busybox"], members["usr/bin/true"]
    assert members["usr/bin/false"].number == busybox.number
    assert mine.number != busybox.number
    assert mine.names == 1
    assert mine.data.startswith(b"\x7fELF")


def test_nothing_names_the_hosts_folders(root: GuestRoot) -> None:
    archive = root.path.read_bytes()
    # What lies in them, as a folder's own name can be as plain as /src or /tmp.
    inside_of = {
        REPOSITORY: ("hookproof", "refagent", "vm", ".venv"),
        Path(sys.prefix): ("bin", "lib"),
        Path(sys.base_prefix): ("bin", "lib"),
        Path.home(): (".cache", ".config", ".local", ".pyenv"),
    }
    named = [f"{above / name}/" for above, names in inside_of.items() for name in names]
    theirs = [name for name in named if not name.startswith(("/usr/", "/bin/", "/lib/"))]
    assert theirs
    assert [name for name in theirs if name.encode() in archive] == []


def test_only_what_a_guest_needs_is_packed(members: dict[str, Member]) -> None:
    assert {f"{LIBRARY}/os.pyc", f"{LIBRARY}/json/decoder.pyc", "init"} <= members.keys()
    assert not {f"{LIBRARY}/{name}" for name in ("test", "tkinter", "ssl.pyc")} & members.keys()
    assert f"{SITE}/hookproof/guest/executor.pyc" in members
    assert f"{SITE}/hookproof/runner.pyc" not in members
    assert f"{SITE}/refagent/objects/override.bpf.o" in members
    assert not [name for name in members if name.endswith((".py", ".c", ".pyi"))]
    assert [*filter(lambda name: name.startswith("etc/"), members)] == [
        "etc/group",
        "etc/hosts",
        "etc/passwd",
    ]


def test_all_is_roots_and_nobody_else_writes_it(members: dict[str, Member]) -> None:
    assert {member.owner for member in members.values()} == {(0, 0)}
    writable = {name for name, each in members.items() if each.mode & 0o022}
    links = {name for name, each in members.items() if stat.S_ISLNK(each.mode)}
    assert writable - links == {"tmp", "var/tmp"}


def test_it_comes_out_the_same_elsewhere(root: GuestRoot, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    changed = {"HOOKPROOF_CACHE": str(tmp_path), "TMPDIR": str(tmp_path / "scratch")}
    env = {**os.environ, **changed, "PYTHONHASHSEED": "7", "PYTHONOPTIMIZE": "2"}
    made = subprocess.check_output([sys.executable, "-c", MAKE], cwd=REPOSITORY, env=env, text=True)
    assert made.strip() == root.digest


def test_what_is_there_is_not_made_again(root: GuestRoot) -> None:
    said: list[str] = []
    assert guestroot.ensure(CONTENTS, said.append) == root
    assert said == []


def test_a_changed_package_makes_another_root_of_the_same_python(
    root: GuestRoot, package: Path
) -> None:
    contents, said = Contents(("packed_by_a_test",), CONTENTS.programs), list[str]()
    first = guestroot.ensure(contents, said.append)
    packed = initramfs.read(first.path.read_bytes())
    assert {f"{SITE}/{package.name}/{name}" for name in ("__init__.pyc", "table.json")} == {
        name for name in packed if name.startswith(f"{SITE}/packed") and packed[name].data
    }
    (package / "__init__.py").write_text("VALUE = 22\n")
    second = guestroot.ensure(contents, said.append)
    assert second.digest != first.digest
    assert [line.partition(":")[0] for line in said] == ["guest root", "guest root"]


def test_a_new_file_in_a_package_is_seen(package: Path) -> None:
    contents = Contents(("packed_by_a_test",), CONTENTS.programs)
    before = guestroot.ensure(contents, print)
    (package / "more.py").write_text("")
    assert guestroot.ensure(contents, print).digest != before.digest


@pytest.mark.parametrize("damage", ["root.cpio", "record.json"])
def test_a_damaged_root_is_made_again(root: GuestRoot, damage: str) -> None:
    whole = root.path.read_bytes()
    with (root.path.parent / damage).open("r+b") as file:
        file.truncate(100)
    said: list[str] = []
    again = guestroot.ensure(CONTENTS, said.append)
    assert again.path.read_bytes() == whole
    assert again == root
    assert len(said) == 1


def test_another_library_makes_another_root(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = ["gcc", "-shared", "-fPIC", "-x", "c", "-"]
    library, user = tmp_path / "libmade_by_a_test.so", package / "user.so"
    link = [*build, "-o", str(user), f"-L{tmp_path}", f"-Wl,-rpath={tmp_path}"]
    subprocess.run([*build, "-o", str(library)], input=b"int a(void) { return 1; }", check=True)
    use = b"int a(void); int b(void) { return a(); }"
    subprocess.run([*link, "-lmade_by_a_test"], input=use, check=True)
    contents = Contents(("packed_by_a_test",), CONTENTS.programs)
    first = guestroot.ensure(contents, print)
    (packed,) = (each for each in initramfs.read(first.path.read_bytes()) if "/libmade" in each)
    assert Path(packed).name == library.name
    subprocess.run([*build, "-o", str(library)], input=b"int a(void) { return 2; }", check=True)
    assert guestroot.ensure(contents, print).digest != first.digest
    library.unlink()
    with pytest.raises(HostProblem) as caught:
        guestroot.ensure(contents, print)
    assert f"{library.name}, which {user} needs, is not on this host" in str(caught.value)


def test_roots_that_nobody_uses_are_removed(root: GuestRoot, package: Path) -> None:
    contents = Contents(("packed_by_a_test",), CONTENTS.programs)
    old = guestroot.ensure(contents, print)
    then = time.time() - 2 * 24 * 3600
    for place in (old.path.parent, root.path.parent):
        os.utime(place, (then, then))
    assert guestroot.ensure(CONTENTS, print) == root  # which is a use
    (package / "__init__.py").write_text("VALUE = 333\n")
    new = guestroot.ensure(contents, print)
    assert not old.path.exists()
    assert new.path.exists()
    assert root.path.exists()
    left = [path.name for path in store.folder("roots").iterdir() if path.name.startswith(".")]
    assert left == []


def test_a_root_may_be_without_packages() -> None:
    packed = initramfs.read(
        guestroot.ensure(Contents((), CONTENTS.programs), print).path.read_bytes()
    )
    assert f"{LIBRARY}/os.pyc" in packed
    assert SITE not in packed


@pytest.mark.parametrize("name", ["never_heard_of", "never_heard_of.part", "json.never_heard_of"])
def test_a_package_that_is_not_installed_is_a_problem(name: str) -> None:
    with pytest.raises(HostProblem) as caught:
        guestroot.ensure(Contents((name,)), print)
    assert f"the package '{name}' is to be packed for the guest and is not installed" in str(
        caught.value
    )
    assert sys.executable in caught.value.hint


def test_a_program_that_is_not_installed_is_a_problem() -> None:
    with pytest.raises(HostProblem, match="never-heard-of is not installed"):
        guestroot.ensure(Contents((), ("never-heard-of",)), print)


def test_a_source_that_cannot_be_compiled_is_a_problem(package: Path) -> None:
    (package / "wrong.py").write_text("fine = 1\ndef (:\n")
    with pytest.raises(UsageProblem) as caught:
        guestroot.ensure(Contents(("packed_by_a_test",), CONTENTS.programs), print)
    assert f"{package / 'wrong.py'}:2: invalid syntax" in str(caught.value)
