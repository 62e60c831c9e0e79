/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the probes' programs share: whose calls count, and where they say what they saw. */
#ifndef HOOKPROOF_PROBE_H
#define HOOKPROOF_PROBE_H

#include "kernel.h"
#include <bpf/bpf_helpers.h>

/* What a probe's programs saw; refagent/probes reads the slots as __u64. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

/* The probing process: its calls count and no others. */
const volatile __u32 tgid = 0;

/* What a denying program returns, negative. */
const volatile __s32 error = 0;

static __always_inline bool mine(void)
{
	return bpf_get_current_pid_tgid() >> 32 == tgid;
}

static __always_inline void put(__u32 slot, __u64 value)
{
	bpf_map_update_elem(&seen, &slot, &value, BPF_ANY);
}

/*
 * Adds one to a slot and returns what it holds then. Not atomic, which 5.10 cannot do and
 * fetch: the calls that matter come one after the other.
 */
static __always_inline __u64 count(__u32 slot)
{
	__u64 *value = bpf_map_lookup_elem(&seen, &slot);

	return value ? ++*value : 0;
}

#endif /* HOOKPROOF_PROBE_H */
