#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Finds a Python to set the project up with; everything else is in setup.py beside this file.
# PYTHON=… names another one than the first suitable of those on PATH.
set -eu
cd "$(dirname "$0")/.."

use_python() {
	for python in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
		if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
			exec "$python" -m tools.setup
		fi
	done
}

as_root() {
	if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

use_python
if ! command -v python3 >/dev/null && command -v apt-get >/dev/null && as_root true 2>/dev/null; then
	echo "setup: installing the Debian package python3"
	as_root apt-get update -qq </dev/null
	as_root apt-get install -qq --yes --no-install-recommends python3 </dev/null >/dev/null
	use_python
fi

echo "setup: no Python 3.11 or newer on PATH; install one and run the command again:" >&2
echo "  Debian/Ubuntu: sudo apt-get update && sudo apt-get install --yes python3" >&2
echo "  Fedora:        sudo dnf install --assumeyes python3" >&2
echo "  Arch:          sudo pacman --sync --needed --noconfirm python" >&2
exit 1
