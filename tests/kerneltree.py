# SPDX-License-Identifier: Apache-2.0
"""A kernel's source in miniature: a Makefile whose targets behave as kbuild's do."""

from __future__ import annotations

from pathlib import Path

from tests.aptrepo import vmlinuz
from vm.kernel import BuildSource, Kernel

RELEASE = "6.12.9"
#: Knows the options of the file `options`. Each image that is begun is a line of `begun`,
#: beside the tree, with its shell's number; if a pipe `hold` lies there, it waits for a reader.
MAKEFILE = """\
VERSION = 6
PATCHLEVEL = 12
SUBLEVEL = 9
EXTRAVERSION =
allnoconfig:
\t@grep -F -f options $(KCONFIG_ALLCONFIG) > $(O)/.config || true
kernelrelease:
\t@echo 6.12.9$(LOCALVERSION)
bzImage:
\t@echo "  CC      init/main.o"
\t@echo $$$$ >> ../begun; if test -p ../hold; then echo held > ../hold; fi
\t@grep -q . broken 2>/dev/null && { cat broken; exit 1; } || true
\t@mkdir -p $(O)/arch/x86/boot
\t@cp image $(O)/arch/x86/boot/bzImage
"""


class Tree:
    """A tree in a folder of its own, and a file of options beside it."""

    def __init__(self, top: Path) -> None:
        self.path = top / "linux"
        self.config = top / "mine.config"
        self.hold = top / "hold"
        self.begun = top / "begun"
        self.path.mkdir(parents=True)
        self.config.write_text('CONFIG_BPF=y\nCONFIG_LSM="a,bpf"\n# CONFIG_VT is not set\n')
        (self.path / "Makefile").write_text(MAKEFILE)
        (self.path / "options").write_text("CONFIG_BPF=\nCONFIG_LSM=\n")
        (self.path / "image").write_bytes(vmlinuz(RELEASE))

    @property
    def kernel(self) -> Kernel:
        """The line of kernels.txt for it."""
        return Kernel("mine", BuildSource(self.path, (self.config,)), where="kernels.txt:3")

    @property
    def builds(self) -> int:
        """How many were begun."""
        return len(self.begun.read_text().split()) if self.begun.exists() else 0
