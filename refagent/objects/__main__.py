# SPDX-License-Identifier: Apache-2.0
"""`python -m refagent.objects`: compiles what is out of date and names it."""

from __future__ import annotations

import sys

from refagent import objects
from refagent.errors import BuildFailed

if __name__ == "__main__":
    try:
        for built in objects.refresh():
            print(built)
    except BuildFailed as failure:
        sys.exit(str(failure))
