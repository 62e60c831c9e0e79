/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The sensor as an fentry program, for kernels whose kprobes cannot be pinned (before 5.15). It
 * runs before the fmod_ret programs of the function's trampoline, and takes one place of it.
 */
#include "sensor.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* Of each of the function's arguments, the bytes that it has: a byte each, the first one lowest. */
const volatile __u64 argument_sizes = 0;

/*
 * Whether the program runs on this CPU already. Before 5.12 the kernel does not look, as it does
 * for kprobes, and an interrupt may call the function while `calls` is in use.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} running SEC(".maps");

/*
 * Read as memory: the verifier of 5.10 lets nobody load an argument that points to other things
 * than structures, and its trampoline saves no more of an argument than its type has.
 */
static __always_inline void read_arguments(const __u64 *arguments, struct call *call)
{
	__u32 size;

	for (int i = 0; i < ARGUMENTS; i++) {
		size = argument_sizes >> 8 * i & 15;
		if (size)
			bpf_probe_read_kernel(&call->arguments[i], size, &arguments[i]);
	}
	if (system_call)
		read_callers_registers((void *)call->arguments[0], call);
}

SEC("shared/fentry")
int sensor(const __u64 *arguments)
{
	struct override_key key = override_key(arguments);
	struct counts *counts = all_counts();
	__u32 zero = 0;
	volatile __u32 *busy = bpf_map_lookup_elem(&running, &zero);
	struct call *call;

	if (!counts || !busy || *busy)
		return 0;
	*busy = 1;
	call = begin_call();
	if (call) {
		read_arguments(arguments, call);
		judge_call(call, counts);
		tell_override(&key, call, counts);
	}
	*busy = 0;
	return 0;
}
