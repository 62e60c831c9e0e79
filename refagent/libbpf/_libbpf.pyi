# SPDX-License-Identifier: Apache-2.0
"""Types of the module that build.py compiles."""

from typing import Any

ffi: Any
lib: Any
