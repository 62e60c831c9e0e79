# SPDX-License-Identifier: Apache-2.0
"""Where an agent pins if nobody says where; apart, for it is asked before libbpf is there."""

from pathlib import Path
from typing import Final

DEFAULT: Final = Path("/sys/fs/bpf/refagent")
