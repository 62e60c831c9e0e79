# SPDX-License-Identifier: Apache-2.0
"""A small signed archive of Debian packages, served on loopback: the real thing in miniature."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vm import mirror

SUITE = "trixie-backports"


def vmlinuz(release: str, *, flags: int = 1) -> bytes:
    """A kernel image's first sectors, with the fields of the boot protocol that are read."""
    head = bytearray(0x400)
    head[0x1F1] = 1
    struct.pack_into("<I", head, 0x1F4, 4)
    head[0x1FE:0x200] = b"\x55\xaa"
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x20E, 0x100)
    struct.pack_into("<H", head, 0x236, flags)
    text = f"{release} (builder@example) #1 SMP".encode() + b"\0"
    head[0x300 : 0x300 + len(text)] = text
    return bytes(head) + b"x" * 64


class Keys:
    """A throw-away signing key in a GnuPG home of its own."""

    def __init__(self, home: Path, keyring: Path) -> None:
        self.home, self.keyring = home, keyring

    def gpg(self, *words: str, data: bytes = b"") -> bytes:
        argv = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", "--yes", *words]
        return subprocess.run(argv, input=data, capture_output=True, check=True).stdout


@contextlib.contextmanager
def keys() -> Iterator[Keys]:
    """Makes a key. GnuPG's sockets need a short path, so the home is not below tmp_path."""
    home = Path(tempfile.mkdtemp(prefix="hpgpg"))
    made = Keys(home, home / "keyring.gpg")
    try:
        new = ("--quick-gen-key", "archive@example", "ed25519", "sign", "never")
        made.gpg("--passphrase", "", *new)
        made.keyring.write_bytes(made.gpg("--export"))
        yield made
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)
        shutil.rmtree(home)


class Archive:
    """The archive's tree; `publish` signs what `add` put there."""

    def __init__(self, root: Path, signer: Keys) -> None:
        self.root, self.signer = root, signer
        self.pool = root / "pool"
        self.pool.mkdir(parents=True)
        self.published = 0

    def add(self, name: str, version: str, files: dict[str, bytes]) -> Path:
        """Builds a package from path → content."""
        tree = self.root / "build" / name
        (tree / "DEBIAN").mkdir(parents=True)
        for path, content in files.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_bytes(content)
        control = {
            "Package": name,
            "Version": version,
            "Architecture": "amd64",
            "Maintainer": "nobody <nobody@example>",
            "Description": "a kernel in miniature",
        }
        text = "".join(f"{key}: {value}\n" for key, value in control.items())
        (tree / "DEBIAN" / "control").write_text(text)
        deb = self.pool / f"{name}_{version}_amd64.deb"
        argv = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(deb)]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(tree)
        return deb

    def whole(self, version: str, release: str, **more: bytes) -> Path:
        """A kernel of one package, as up to 6.18."""
        files = {
            f"boot/vmlinuz-{release}": vmlinuz(release),
            f"boot/config-{release}": b"CONFIG_BPF_LSM=y\n",
            f"boot/System.map-{release}": b"ffffffff T _text\n",
            f"usr/lib/modules/{release}/kernel/fs/a.ko": release.encode(),
            f"usr/lib/modules/{release}/kernel/net/b.ko.xz": b"b" * 3000,
            f"usr/lib/modules/{release}/modules.order": b"kernel/fs/a.ko\n",
            f"usr/lib/modules/{release}/modules.builtin": b"",
            f"usr/share/doc/linux-image-{release}/copyright": b"GPL-2\n",
        }
        return self.add(f"linux-image-{release}", version, files | more)

    def split(self, version: str, release: str, *, base: bool = True, modules: bool = True) -> None:
        """A kernel of three packages and an empty one, as from 6.19 on; two may be gone."""
        home = f"usr/lib/modules/{release}"
        self.add(f"linux-image-{release}", version, {})
        self.add(f"linux-binary-{release}", version, {f"{home}/vmlinuz": vmlinuz(release)})
        if base:
            more = {f"{home}/config": b"CONFIG_IMA=y\n", f"{home}/modules.order": b"kernel/a.ko\n"}
            self.add(f"linux-base-{release}", version, more)
        if modules:
            self.add(f"linux-modules-{release}", version, {f"{home}/kernel/a.ko": b"split"})

    def publish(self, suite: str = SUITE, *, valid_days: int = 7, sign: bool = True) -> None:
        """Writes and signs the suite's lists of all that is in the pool."""
        stanzas = []
        for deb in sorted(self.pool.glob("*.deb")):
            argv = ["dpkg-deb", "--field", str(deb)]
            fields = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
            data = deb.read_bytes()
            stanzas.append(
                f"{fields}Filename: pool/{deb.name}\nSize: {len(data)}\n"
                f"SHA256: {hashlib.sha256(data).hexdigest()}\n"
            )
        top = self.root / "dists" / suite
        lists = top / "main" / "binary-amd64"
        lists.mkdir(parents=True, exist_ok=True)
        packages = "\n".join(stanzas).encode()
        (lists / "Packages").write_bytes(packages)
        now = datetime.now(UTC)
        form = "%a, %d %b %Y %H:%M:%S UTC"
        release = (
            f"Origin: Debian\nLabel: Debian\nSuite: {suite}\nCodename: {suite}\n"
            f"Date: {(now - timedelta(days=30)).strftime(form)}\n"
            f"Valid-Until: {(now + timedelta(days=valid_days)).strftime(form)}\n"
            "Architectures: amd64\nComponents: main\nSHA256:\n"
            f" {hashlib.sha256(packages).hexdigest()} {len(packages)} main/binary-amd64/Packages\n"
        ).encode()
        (top / "InRelease").unlink(missing_ok=True)
        (top / "Release").write_bytes(release)
        if sign:
            (top / "InRelease").write_bytes(self.signer.gpg("--clearsign", data=release))
        # HTTP knows whole seconds only: what is published twice in one would look unchanged.
        self.published += 1
        changed = now.timestamp() - 3600 + 60 * self.published
        for file in top.rglob("*"):
            os.utime(file, (changed, changed))


class Server:
    """Serves a folder over HTTP on a free loopback port.

    Attributes:
        requests: paths asked for, in order.
        hold: a path's ending → an event: a request for it is held until the event is set.
        asked: is set once a held request has come.
    """

    def __init__(self, folder: Path) -> None:
        self.requests: list[str] = []
        self.hold: dict[str, threading.Event] = {}
        self.asked = threading.Event()
        server = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append(self.path)
                for ending, event in server.hold.items():
                    if self.path.endswith(ending):
                        server.asked.set()
                        event.wait(60)
                with contextlib.suppress(ConnectionError):
                    super().do_GET()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self.address = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for event in self.hold.values():
            event.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture(scope="session")
def signer() -> Iterator[Keys]:
    """A signing key, made once."""
    if shutil.which("gpg") is None:
        pytest.skip("signing a test archive needs gpg: install the package 'gnupg'")
    with keys() as made:
        yield made


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own."""
    path = tmp_path / "the cache"
    monkeypatch.setenv("HOOKPROOF_CACHE", str(path))
    return path


@pytest.fixture
def archive(tmp_path: Path, signer: Keys, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """An archive without packages, whose key is the one that is trusted."""
    monkeypatch.setattr(mirror, "KEYRING", signer.keyring)
    return Archive(tmp_path / "archive", signer)


@pytest.fixture
def server(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The archive's server, set as the mirror."""
    with Server(archive.root) as running:
        monkeypatch.setenv(mirror.VARIABLE, running.address)
        yield running
