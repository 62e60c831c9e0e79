/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A gate of the harness, no program of the agent's: it holds one call of one thread at a kernel
 * function until it is opened. A program that may not sleep can only spin, so the loop is bounded
 * twice: by the clock, and by its turns, of which each takes a while. That is a loop as the
 * verifier of 5.10 takes it; bpf_loop() came with 5.17.
 */
#ifndef HOOKPROOF_GATE_H
#define HOOKPROOF_GATE_H

#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

/*
 * A turn ends by the clock, after as many copies as that takes: one takes about a tenth of a
 * millisecond, and some milliseconds under emulation. More turns are too many jumps for the
 * verifier; all of them take 16 s.
 */
#define ROOM_SIZE (1 << 21)
#define COPIES	  256
#define TURN_NS	  8000000
#define TURNS	  2048

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct task_struct___family {
	int pid;
	struct task_struct___family *real_parent;
};

#pragma clang attribute pop

/*
 * What the harness says, and what it is told; hookproof/guest/gates.py has the same. Each is
 * written by one side alone: a value is written as a whole, and so over what the other has put
 * there.
 */
struct said {
	__u32 thread; /* whose call is held, or that of a child which it made */
	__u32 open;   /* let it go */
};

struct told {
	__u64 reached;	/* the process and thread that came, or 0 */
	__u64 overtime; /* it went on without being let go */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct said);
} gate_said SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct told);
} gate_told SEC(".maps");

/* Copied onto itself, to pass the time. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u8[ROOM_SIZE]);
} room SEC(".maps");

/* Nanoseconds after which the call goes on by itself. */
const volatile __u64 patience = 0;

static __always_inline bool is_held(__u32 thread)
{
	struct task_struct___family *task = (void *)bpf_get_current_task();

	return (__u32)bpf_get_current_pid_tgid() == thread ||
	       BPF_CORE_READ(task, real_parent, pid) == thread;
}

/* A turn. Its function is not static, so the verifier goes through it once, and not each time. */
__noinline int pass_time(void)
{
	__u32 zero = 0;
	void *bytes = bpf_map_lookup_elem(&room, &zero);
	__u64 end = bpf_ktime_get_ns() + TURN_NS;

	for (int copy = 0; bytes && copy < COPIES && bpf_ktime_get_ns() < end; copy++)
		bpf_probe_read_kernel(bytes, ROOM_SIZE, bytes);
	return 0;
}

/* Holds the call if it is the one; returns whether it was. Of one thread the first call is. */
static __always_inline bool hold(void)
{
	__u32 zero = 0;
	const volatile struct said *said = bpf_map_lookup_elem(&gate_said, &zero);
	volatile struct told *told = bpf_map_lookup_elem(&gate_told, &zero);
	__u64 end;

	if (!said || !told || told->reached || !is_held(said->thread))
		return false;
	end = bpf_ktime_get_ns() + patience;
	told->reached = bpf_get_current_pid_tgid();
	for (int i = 0; i < TURNS; i++) {
		if (said->open)
			return true;
		if (bpf_ktime_get_ns() > end)
			break;
		pass_time();
	}
	told->overtime = 1;
	return true;
}

#endif /* HOOKPROOF_GATE_H */
