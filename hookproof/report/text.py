# SPDX-License-Identifier: Apache-2.0
"""Text and values made fit for a file: no character, name or type that a reader chokes on."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

#: What XML 1.0 cannot hold, section 2.2 "Characters"; half a surrogate pair included.
_ILLEGAL = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_UNSAFE = re.compile(r"[^A-Za-z0-9._+=,@%\[\]-]")
_NAME_LIMIT = 120  # a file's name may have 255 bytes; leaves room for an ending


def clean(text: str) -> str:
    """`text` without characters that XML 1.0 cannot hold; carriage returns go too."""
    return _ILLEGAL.sub("", text)


def shorten(text: str, limit: int) -> str:
    """The beginning and the end of a long text, with a line between that says how much is gone."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters left out …]\n{text[-half:]}"


def safe_name(name: str, key: str, *, taken: bool = False) -> str:
    """A file's name that reads like `name` and can neither leave its folder nor be too long.

    Args:
        name: the name wanted.
        key: what tells this one from others; its hash is appended where `name` had to
            be changed, or is `taken`.
        taken: another has the name already.
    """
    plain = _UNSAFE.sub("_", name)[:_NAME_LIMIT]
    if plain.startswith((".", "-")) or not plain:
        plain = f"_{plain[1:]}"
    if plain == name and not taken:
        return name
    return f"{plain}-{hashlib.sha256(key.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}"


def to_json(value: Any) -> str:
    """`value` as JSON that every parser reads, with a final newline.

    What JSON has no word for (bytes, sets, NaN, half a surrogate pair) is written as
    Python shows it.
    """
    return json.dumps(_plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_bytes(text: str) -> bytes:
    r"""UTF-8; a byte that was none when it was read shows as `\udcNN`."""
    return text.encode("utf-8", "backslashreplace")


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, str):
        return to_bytes(value).decode()
    if isinstance(value, Mapping):
        return {to_bytes(str(key)).decode(): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return to_bytes(repr(value)).decode()
