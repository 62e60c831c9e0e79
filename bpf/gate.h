/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A gate of the harness, no program of the agent's: it holds one call of one thread at a kernel
 * function until it is opened. A program that may not sleep can only spin, so the loop is bounded
 * twice: by the clock, and by its turns, of which each takes the time of a large copy. That is a
 * loop as the verifier of 5.10 takes it; bpf_loop() came with 5.17.
 */
#ifndef HOOKPROOF_GATE_H
#define HOOKPROOF_GATE_H

#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

/*
 * A copy takes about a tenth of a millisecond, and some milliseconds under emulation. More turns
 * are too many jumps for the verifier.
 */
#define ROOM_SIZE (1 << 21)
#define COPIES	  8
#define TURNS	  2048

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct task_struct___family {
	int pid;
	struct task_struct___family *real_parent;
};

#pragma clang attribute pop

/* What the harness says, and is told; hookproof/guest/gates.py has the same. */
struct gate {
	__u32 thread;	/* whose call is held, or that of a child which it made */
	__u32 open;	/* said: let it go */
	__u64 reached;	/* told: the process and thread that came, or 0 */
	__u32 overtime; /* told: it went on without being let go */
	__u32 zero;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct gate);
} gates SEC(".maps");

/* Copied onto itself, to pass the time. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u8[ROOM_SIZE]);
} room SEC(".maps");

/* Nanoseconds after which the call goes on by itself. */
const volatile __u64 patience = 0;

static __always_inline bool is_held(const struct gate *gate)
{
	struct task_struct___family *task = (void *)bpf_get_current_task();

	return (__u32)bpf_get_current_pid_tgid() == gate->thread ||
	       BPF_CORE_READ(task, real_parent, pid) == gate->thread;
}

/* Holds the call if it is the one; returns whether it was. Of one thread the first call is. */
static __always_inline bool hold(void)
{
	__u32 zero = 0;
	volatile struct gate *gate = bpf_map_lookup_elem(&gates, &zero);
	void *bytes = bpf_map_lookup_elem(&room, &zero);
	__u64 end;

	if (!gate || !bytes || gate->reached || !is_held((const struct gate *)gate))
		return false;
	end = bpf_ktime_get_ns() + patience;
	gate->reached = bpf_get_current_pid_tgid();
	for (int i = 0; i < TURNS; i++) {
		if (gate->open)
			return true;
		if (bpf_ktime_get_ns() > end)
			break;
#pragma unroll
		for (int copy = 0; copy < COPIES; copy++)
			bpf_probe_read_kernel(bytes, ROOM_SIZE, bytes);
	}
	gate->overtime = 1;
	return true;
}

#endif /* HOOKPROOF_GATE_H */
