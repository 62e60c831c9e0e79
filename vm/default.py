# SPDX-License-Identifier: Apache-2.0
"""Where kernels.txt and kernels.lock lie if nobody says otherwise.

In a checkout they are at its top, to be read and changed; an installed package carries
the ones it was built with beside this file.
"""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent


def _beside(name: str) -> Path:
    packaged = HERE / name
    return packaged if packaged.exists() else HERE.parent / name


def default_catalog() -> Path:
    """The list of the kernels under test."""
    return _beside("kernels.txt")


def nearest_catalog() -> Path:
    """The list in the working folder, else `default_catalog`."""
    own = Path("kernels.txt")
    return own if own.is_file() else default_catalog()


def default_lock() -> Path:
    """What the patterns of `default_catalog` resolved to. The file need not exist yet."""
    catalog = default_catalog()
    return catalog.with_suffix(".lock")
