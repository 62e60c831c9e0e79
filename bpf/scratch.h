/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Memory for what does not fit on the stack: SCRATCH(NAME, CONTENT) declares it, my_NAME() finds
 * it, or NULL.
 *
 * A kprobe's program is alone on its CPU: the kernel skips the program of a probe that is hit
 * meanwhile. An LSM program is not: where the kernel preempts itself, another task's can begin on
 * its CPU before it ends. It defines SCRATCH_OF_THE_TASK, and takes its task's.
 */
#ifndef HOOKPROOF_SCRATCH_H
#define HOOKPROOF_SCRATCH_H

#include "kernel.h"
#include <bpf/bpf_helpers.h>

#ifdef SCRATCH_OF_THE_TASK

#define SCRATCH(name, content)                                                                     \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_TASK_STORAGE);                                           \
		__uint(map_flags, BPF_F_NO_PREALLOC);                                              \
		__type(key, int);                                                                  \
		__type(value, struct content);                                                     \
	} name SEC(".maps");                                                                       \
                                                                                                   \
	static __always_inline struct content *my_##name(void)                                     \
	{                                                                                          \
		return bpf_task_storage_get(&name, bpf_get_current_task_btf(), NULL,               \
					    BPF_LOCAL_STORAGE_GET_F_CREATE);                       \
	}

#else

#define SCRATCH(name, content)                                                                     \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                                           \
		__uint(max_entries, 1);                                                            \
		__type(key, __u32);                                                                \
		__type(value, struct content);                                                     \
	} name SEC(".maps");                                                                       \
                                                                                                   \
	static __always_inline struct content *my_##name(void)                                     \
	{                                                                                          \
		__u32 zero = 0;                                                                    \
                                                                                                   \
		return bpf_map_lookup_elem(&name, &zero);                                          \
	}

#endif

#endif /* HOOKPROOF_SCRATCH_H */
