# SPDX-License-Identifier: Apache-2.0
"""Digests of files as IMA gives them, and as people write them: `sha256:` and hexadecimal."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Final

#: enum hash_algo of include/uapi/linux/hash_info.h: its number → name and bytes.
ALGORITHMS: Final = {
    0: ("md4", 16),
    1: ("md5", 16),
    2: ("sha1", 20),
    3: ("rmd160", 20),
    4: ("sha256", 32),
    5: ("sha384", 48),
    6: ("sha512", 64),
    7: ("sha224", 28),
    8: ("rmd128", 16),
    9: ("rmd256", 32),
    10: ("rmd320", 40),
    11: ("wp256", 32),
    12: ("wp384", 48),
    13: ("wp512", 64),
    14: ("tgr128", 16),
    15: ("tgr160", 20),
    16: ("tgr192", 24),
    17: ("sm3", 32),
    18: ("streebog256", 32),
    19: ("streebog512", 64),
    20: ("sha3-256", 32),
    21: ("sha3-384", 48),
    22: ("sha3-512", 64),
}
_NUMBERS: Final = {name: number for number, (name, _) in ALGORITHMS.items()}

#: Bytes that a program has for one (DIGEST_SIZE of bpf/chain.h).
SIZE: Final = 64

#: Python has another name for it.
_NAMES: Final = {errno.EOPNOTSUPP: "EOPNOTSUPP"}

#: Why there is none.
_WHY: Final = {
    errno.ENOENT: "the call has no file",
    errno.ENODATA: "the program that has it hashed did not run",
    errno.ENOMEM: "there was no memory to keep the call in mind",
    errno.EOPNOTSUPP: "IMA cannot hash this file here, or has not",
    errno.EINVAL: "IMA cannot read the file",
}


@dataclass(frozen=True, order=True)
class Digest:
    """One digest.

    Attributes:
        algorithm: its number in enum hash_algo.
        value: its bytes; of an algorithm that is not known here, all that there are.
    """

    algorithm: int
    value: bytes

    @classmethod
    def parse(cls, text: str) -> Digest:
        """From `ALGORITHM:HEXADECIMAL`.

        Raises:
            ValueError: it is none.
        """
        name, colon, digits = text.partition(":")
        number = _NUMBERS.get(name)
        if not colon or number is None:
            raise ValueError(f"{text!r} is no digest: write sha256: and its 64 hexadecimal digits")
        size = ALGORITHMS[number][1]
        try:
            value = bytes.fromhex(digits)
        except ValueError:
            value = b""
        if len(value) != size or len(digits) != 2 * size:
            raise ValueError(f"a {name} has {2 * size} hexadecimal digits, {text!r} has not")
        return cls(number, value)

    @classmethod
    def of_kernel(cls, algorithm: int, raw: bytes) -> Digest:
        """As a program left it in its SIZE bytes."""
        _, size = ALGORITHMS.get(algorithm, ("", SIZE))
        return cls(algorithm, raw[:size])

    def __str__(self) -> str:
        return f"{algorithm_name(self.algorithm)}:{self.value.hex()}"


def algorithm_name(number: int) -> str:
    """An algorithm's name, or its number where a kernel has one that is not known here."""
    return ALGORITHMS.get(number, (f"algorithm-{number}", 0))[0]


def why_none(number: int) -> str:
    """Why there is no digest, by the errno, a positive number."""
    name = _NAMES.get(number) or errno.errorcode.get(number, str(number))
    return f"{name}: {_WHY[number]}" if number in _WHY else name
