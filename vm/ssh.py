# SPDX-License-Identifier: Apache-2.0
"""ssh to a guest: keys made for one run, the host key known beforehand, loopback only."""

from __future__ import annotations

import contextlib
import io
import logging
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vm.errors import BootFailure, LostMachine

if TYPE_CHECKING:  # imported where it runs: it costs a tenth of a second
    import paramiko

_LOCALHOST: Final = "127.0.0.1"


@dataclass(frozen=True)
class Keys:
    """Two new key pairs.

    Attributes:
        client: ours; it never leaves this process.
        host: the public half of the guest's; its private half lies in the run's folder.
    """

    client: paramiko.PKey
    host: paramiko.PKey


def make_keys(folder: Path) -> Keys:
    """Makes both pairs and writes what the guest's sshd needs into the folder."""
    client, client_public, _ = _ed25519()
    host, _, host_private = _ed25519()
    (folder / "authorized_keys").write_bytes(client_public + b"\n")
    (folder / "host_key").touch(mode=0o600)
    (folder / "host_key").write_bytes(host_private)
    return Keys(client, host)


def _ed25519() -> tuple[paramiko.PKey, bytes, bytes]:
    """A new pair: paramiko's key, its public line, its private file."""
    import paramiko
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption())
    public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
    return paramiko.Ed25519Key.from_private_key(io.StringIO(private.decode())), public, private


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    """A TCP port on 127.0.0.1 that nobody else is given while the block runs.

    The socket stays bound, so no other call of this function on the host gets the same
    number; QEMU may still listen on it, because both set SO_REUSEADDR and this one
    does not listen.
    """
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind((_LOCALHOST, 0))
        yield keeper.getsockname()[1]


def connect(port: int, keys: Keys, *, deadline: float) -> paramiko.Transport:
    """An authenticated transport to the guest behind a port on 127.0.0.1.

    Args:
        port: where QEMU forwards to the guest's sshd, which listens already.
        keys: of this run.
        deadline: seconds for each of connection, key exchange and authentication.

    Raises:
        BootFailure: no answer, or another host key than the one made for this run.
    """
    import paramiko

    # It logs tracebacks of what it raises as well; one telling is enough.
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)
    line = None
    try:
        line = socket.create_connection((_LOCALHOST, port), timeout=deadline)
        transport = paramiko.Transport(line)
        transport.banner_timeout = transport.handshake_timeout = deadline
        transport.auth_timeout = deadline
        transport.start_client(timeout=deadline)
        if transport.get_remote_server_key() != keys.host:
            transport.close()
            raise BootFailure(f"port {port} answered with a host key that is not this guest's")
        transport.auth_publickey("root", keys.client)
    except (OSError, EOFError, paramiko.SSHException) as error:
        if line is not None:
            line.close()
        raise BootFailure(f"ssh to the guest failed: {error or type(error).__name__}") from None
    return transport


def channel(transport: paramiko.Transport, port: int, *, deadline: float) -> paramiko.Channel:
    """A byte stream to a TCP port on the guest's own loopback.

    Raises:
        LostMachine: the guest refused it or is gone.
    """
    import paramiko

    here = (_LOCALHOST, 0)
    try:
        return transport.open_channel("direct-tcpip", (_LOCALHOST, port), here, timeout=deadline)
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise LostMachine(f"no connection to the guest's port {port}: {error}") from None
