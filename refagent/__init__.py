# SPDX-License-Identifier: Apache-2.0
"""The reference agent: policies in the kernel through BPF, with cffi over libbpf."""
