# SPDX-License-Identifier: Apache-2.0
"""A kernel that lies on this host already: checked, and linked into the usual layout."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from vm import leftover, manifest, store, vmlinuz
from vm.errors import UsageProblem
from vm.kernel import Image, Kernel, LocalSource


def image(kernel: Kernel, source: LocalSource) -> Image:
    """The image of a local kernel.

    Its folder in the cache holds links to the user's files, in the layout that unpacked
    kernels have too; nothing is copied. The digest is over the kernel's bytes, modules.dep,
    and the names, sizes and times of the modules: a rebuild changes it.

    Raises:
        UsageProblem: the file is no kernel, or the modules are not its own.
    """
    release = vmlinuz.release(source.vmlinuz, where=kernel.where)
    target = source.vmlinuz.resolve()
    found = hashlib.sha256(f"{target} {manifest.digest(target)}".encode())
    if source.modules is not None:
        _check_modules(kernel, source.modules, release)
        found.update(str(source.modules.resolve()).encode())
        found.update(manifest.digest(source.modules / "modules.dep").encode())
        found.update(manifest.fingerprint(source.modules).encode())
    digest = found.hexdigest()
    place = store.folder("local", f"{release}-{digest[:16]}")
    modules = place / "lib" / "modules" / release
    # Without a lib/modules of its own, virtme-run takes the next one further up.
    modules.parent.mkdir(parents=True, exist_ok=True)
    boot = place / "boot" / f"vmlinuz-{release}"
    boot.parent.mkdir(exist_ok=True)
    _link(boot, target)
    leftover.mark(place)
    if source.modules is not None:
        _link(modules, source.modules.resolve())
    return Image(
        kernel,
        release,
        version=release,
        vmlinuz=boot,
        modules=modules if source.modules is not None else None,
        config=_config(source, release),
        digest=digest,
    )


def _check_modules(kernel: Kernel, modules: Path, release: str) -> None:
    if not modules.is_dir():
        raise UsageProblem(f"modules={modules} is no folder", where=kernel.where)
    if modules.resolve().name != release:
        raise UsageProblem(
            f"modules={modules} are not those of {release}",
            where=kernel.where,
            hint=f"give the folder …/lib/modules/{release}",
        )
    if not (modules / "modules.dep").is_file():
        raise UsageProblem(
            f"modules={modules} has no modules.dep",
            where=kernel.where,
            hint=f"run: depmod -b {modules.resolve().parents[2]} {release}",
        )


def _config(source: LocalSource, release: str) -> Path | None:
    """The kernel's configuration where distributions and build trees keep it."""
    beside = [source.vmlinuz.with_name(f"config-{release}")]
    if source.modules is not None:
        beside += [source.modules / "config", source.modules / "build" / ".config"]
    # A build tree: vmlinuz is TREE/arch/x86/boot/bzImage.
    beside += [parent / ".config" for parent in source.vmlinuz.resolve().parents[3:4]]
    return next((path for path in beside if path.is_file()), None)


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and link.readlink() == target:
        return
    new = link.with_name(f".{link.name}-{os.getpid()}")
    new.symlink_to(target)
    new.replace(link)
