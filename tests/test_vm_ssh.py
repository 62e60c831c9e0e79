# SPDX-License-Identifier: Apache-2.0
"""Ports that do not clash, keys that stay where they belong, a host that is not ours."""

from __future__ import annotations

import contextlib
import socket
import stat
from pathlib import Path

import pytest

from vm import ssh
from vm.errors import BootFailure


def test_ports_differ_while_they_are_held() -> None:
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(ssh.free_port()) for _ in range(50)]
        assert len(set(ports)) == 50


def test_qemu_can_listen_on_a_held_port() -> None:
    with ssh.free_port() as port, socket.socket() as qemu:
        qemu.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as libslirp does
        qemu.bind(("127.0.0.1", port))
        qemu.listen()


def test_keys_are_new_each_time_and_private(tmp_path: Path) -> None:
    first = ssh.make_keys(tmp_path)
    mode = stat.S_IMODE((tmp_path / "host_key").stat().st_mode)
    assert mode == 0o600
    written = b"".join(each.read_bytes() for each in tmp_path.iterdir())
    (tmp_path / "two").mkdir()
    second = ssh.make_keys(tmp_path / "two")
    assert first.host.get_base64() != second.host.get_base64()
    assert first.client.get_base64() != second.client.get_base64()
    assert written.count(b"PRIVATE KEY-----") == 2  # begin and end of one: the host's
    assert first.client.get_base64().encode() in written


def test_nobody_listens(tmp_path: Path) -> None:
    keys = ssh.make_keys(tmp_path)
    with ssh.free_port() as port, pytest.raises(BootFailure, match="ssh to the guest failed"):
        ssh.connect(port, keys, deadline=5)


def test_who_answers_speaks_no_ssh(tmp_path: Path) -> None:
    keys = ssh.make_keys(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(BootFailure, match="ssh to the guest failed"):
            ssh.connect(port, keys, deadline=0.2)
