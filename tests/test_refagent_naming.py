# SPDX-License-Identifier: Apache-2.0
"""Names in the kernel, and of pins."""

from __future__ import annotations

import string

import pytest

from refagent import naming

#: As the kernel has it: bpf_obj_name_cpy of kernel/bpf/syscall.c.
ALLOWED = set(string.ascii_letters + string.digits + "_.")


@pytest.mark.parametrize(
    ("function", "sensor"),
    [
        ("security_path_mkdir", "hps_path_mkdir"),
        ("security_inode_need_killpriv", "hps_inode_need"),
        ("__x64_sys_open", "hps_sys_open"),
        ("__ia32_compat_sys_open", "hps_sys_open"),
        ("vfs_mkdir", "hps_vfs_mkdir"),
    ],
)
def test_names_lead_to_agent_role_and_function(function: str, sensor: str) -> None:
    name = naming.on(function)
    assert name("sensor") == sensor
    assert name("override.rodata") == f"hpk{sensor[3:]}"
    roles = [name(each) for each in ("sensor", "override", "policies", "rules", "by_binary")]
    assert len(set(roles)) == len(roles)
    for each in roles:
        # Of 15 bytes bpftool takes it that more was cut off: get_prog_full_name.
        assert len(each) < 15
        assert set(each) <= ALLOWED


def test_a_sensor_is_known_by_its_name() -> None:
    name = naming.on("security_path_mkdir")
    assert [each for each in ("sensor", "override", "rules") if naming.is_sensor(name(each))] == [
        "sensor"
    ]


def test_what_finds_policies_is_known_by_its_name() -> None:
    name = naming.on("lsm/bprm_check_security")
    found = [
        each for each in ("sensor", "filter", "ima", "send") if naming.finds_policies(name(each))
    ]
    assert found == ["sensor", "filter"]
