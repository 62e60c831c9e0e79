# SPDX-License-Identifier: Apache-2.0
"""Digests as people write them and as the kernel gives them."""

import errno
import hashlib
from pathlib import Path

import pytest

from refagent import policyfile
from refagent.digests import ALGORITHMS, SIZE, Digest, algorithm_name, why_none
from refagent.errors import BadFile
from refagent.policy import Policy

EMPTY = f"sha256:{hashlib.sha256().hexdigest()}"


def test_what_is_written_is_what_the_kernel_gives() -> None:
    digest = Digest.parse(EMPTY)
    assert digest == Digest.of_kernel(4, hashlib.sha256().digest().ljust(SIZE, b"\0"))
    assert str(digest) == EMPTY


@pytest.mark.parametrize("number", ALGORITHMS)
def test_every_algorithm_of_the_kernel_is_labelled_with_its_bytes(number: int) -> None:
    digest = Digest.of_kernel(number, bytes(range(SIZE)))
    assert Digest.parse(str(digest)) == digest
    assert str(digest).startswith(f"{algorithm_name(number)}:0001")


@pytest.mark.parametrize("name", ["md5", "sha1", "sha224", "sha256", "sha384", "sha512"])
def test_sizes_are_those_of_the_algorithms(name: str) -> None:
    assert (name, hashlib.new(name).digest_size) in ALGORITHMS.values()


def test_an_algorithm_that_is_not_known_is_not_dropped() -> None:
    assert str(Digest.of_kernel(99, b"\1" * SIZE)) == "algorithm-99:" + "01" * SIZE


@pytest.mark.parametrize(
    "text", ["", "sha256", "sha256:", EMPTY[:-1], EMPTY + "0", EMPTY[:-1] + "g", "sha3:00", ":00"]
)
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no digest|has \d+ hexadecimal digits"):
        Digest.parse(text)


def test_why_there_is_none() -> None:
    assert why_none(errno.EOPNOTSUPP) == "EOPNOTSUPP: IMA cannot hash this file here, or has not"
    assert why_none(errno.EIO) == "EIO"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"hook": "security_path_mkdir", "post": True, "hash": True}, "only LSM hooks have"),
        ({"override": 1, "hash": True}, "has hash, and no post"),
        ({"override": 1, "digest_in": (EMPTY,), "digest_not_in": (EMPTY,)}, "keep one"),
        ({"override": 1, "digest_in": ("sha256:00",)}, "has 64 hexadecimal digits"),
        ({"override": 1, "by": "fmod_ret"}, "has by, and an LSM hook"),
    ],
)
def test_a_policy_about_digests_makes_sense(fields: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Policy(**{"name": "a", "hook": "lsm/file_post_open"} | fields).checked()  # type: ignore[arg-type]


def test_lists_of_digests_go_over_the_wire() -> None:
    policy = Policy("a", "lsm/mmap_file", override=1, digest_not_in=(EMPTY,))
    assert policy.to_json()["digest_not_in"] == [EMPTY]
    assert Policy.from_json(policy.to_json()) == policy
    with pytest.raises(ValueError, match="cannot hold 7"):
        Policy.from_json({"name": "a", "hook": "h", "digest_in": [7]})


def test_an_empty_list_of_digests_is_no_policy_for_every_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="digest_in of a policy cannot be empty"):
        Policy.from_json({"name": "a", "hook": "lsm/mmap_file", "override": 1, "digest_in": []})
    path = tmp_path / "p.yaml"
    path.write_text(
        "{name: a, hook: lsm/mmap_file, override: EPERM, digest_not_in: []}\n", encoding="utf-8"
    )
    with pytest.raises(BadFile, match=r"p\.yaml:1:64: the list of digest_not_in is empty"):
        policyfile.read(path)
