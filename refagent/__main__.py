# SPDX-License-Identifier: Apache-2.0
"""`python -m refagent`: the command line where no `refagent` is installed."""

from __future__ import annotations

import sys

from refagent.cli import main

sys.exit(main())
