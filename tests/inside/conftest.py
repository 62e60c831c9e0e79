# SPDX-License-Identifier: Apache-2.0
"""Tests of the reference agent that run in a guest, as they deny this machine's calls.

tests/test_inside.py boots kernels and runs them there. By hand, with the number of random
sequences, and a seed other than 1 for others:

    hookproof shell 6.12 -- env HOOKPROOF_INSIDE=50 HOOKPROOF_SEED=2 \
        python -m pytest -p no:cacheprovider tests/inside
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

INSIDE = "HOOKPROOF_INSIDE"
SEED = "HOOKPROOF_SEED"
EXPEDITED = Path("/sys/kernel/rcu_expedited")

collect_ignore_glob = [] if INSIDE in os.environ else ["*"]


@pytest.fixture(scope="session")
def sequences() -> int:
    """How many random sequences are wanted."""
    return int(os.environ[INSIDE])


@pytest.fixture(scope="session")
def seed() -> int:
    """What they are drawn from; said, so that a failure can be had again."""
    number = int(os.environ.get(SEED, "1"))
    print(f"{SEED}={number}")
    return number


@pytest.fixture(scope="session", autouse=True)
def _warm() -> None:
    """Loads what stays for as long as the process does: types, templates, what Python imports."""
    import refagent
    from refagent.agent import Agent
    from refagent.libbpf import template
    from refagent.policy import Policy
    from tests.inside.chains import no_chains
    from tests.inside.things import Inventory

    assert Path(refagent.__file__).parents[1] == Path(__file__).parents[2], "another checkout's"
    with Agent() as agent:
        agent.load(Policy("warm", "__x64_sys_mkdir", post=True))
        agent.load(Policy("warmer", "security_path_mkdir", uid=1, override=1))
        template.prepare("sensor_fentry")
        Inventory.now()
    no_chains()


@pytest.fixture(autouse=True)
def _nothing_left(_warm: None) -> Iterator[None]:
    """A test leaves nothing behind."""
    from tests.inside.things import Inventory

    before = Inventory.now()
    yield
    assert Inventory.now().since(before) == []


@pytest.fixture
def _expedited() -> Iterator[None]:
    """Nothing else runs meanwhile, so that the kernel need not be considerate."""
    EXPEDITED.write_text("1", "ascii")
    yield
    EXPEDITED.write_text("0", "ascii")


@pytest.fixture(autouse=True)
def _no_umask() -> Iterator[None]:
    """The mode of a call is the one that the hook sees."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder for pins that is not there yet; it may not be left behind."""
    folder = Path("/sys/fs/bpf/tests")
    yield folder
    assert not folder.exists()


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory to make others in."""
    with tempfile.TemporaryDirectory(dir="/run") as name:
        yield Path(name)
