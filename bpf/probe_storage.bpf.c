/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Probe of task storage: a task's second call finds what its first one stored. */
#include "probe.h"

char _license[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u64);
} stored SEC(".maps");

SEC("fentry")
int store(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 *calls;

	if (!mine())
		return 0;
	calls = bpf_task_storage_get(&stored, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!calls)
		return 0;
	*calls += 1;
	put(0, *calls);
	return 0;
}
