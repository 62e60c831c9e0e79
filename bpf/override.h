/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What a sensor leaves for the override program behind it: "deny the call this
 * thread is in", and what both count. Python has the same layouts in refagent/layout.py.
 */
#ifndef HOOKPROOF_OVERRIDE_H
#define HOOKPROOF_OVERRIDE_H

#include "kernel.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

/*
 * A call is its thread's, or its CPU's if it is in a softirq: that may interrupt a thread which is
 * between sensor and override of the same function, or an idle task, which all are thread 0.
 */
struct override_key {
	__u64 pid_tgid; /* of a CPU's call: 0 */
	__u32 override; /* whose program may take it; an id that is never used again */
	__u32 cpu;	/* of a CPU's call: 1 and more; of a thread's: 0 */
};

struct override_entry {
	__s32 error; /* -4095 … -1 */
	__u32 policy;
	__u32 place; /* of the policy in policy_counts */
	__u32 zero;
};

/* At most so many policies are loaded; a power of two. */
#define POLICIES 16384

/*
 * Calls that matched a policy. Those that are in none of the other numbers were denied by
 * another program before ours had its turn.
 */
struct policy_count {
	__u64 matched;
	__u64 denied;	/* for this policy's sake */
	__u64 outvoted; /* another policy, loaded earlier, decided */
	__u64 lost;	/* override_tasks was full: the call went through */
};

struct counts {
	struct policy_count of[POLICIES]; /* each policy is given its place */
	__u64 events_lost;		  /* the ring buffer was full */
	__u64 paths_unread; /* a path of which only the rules for all calls were asked */
	__u64 calls_unseen; /* no memory to look at them with, so that they went through */
};

/* One for all sensors and all override programs; the agent makes it. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, struct override_key);
	__type(value, struct override_entry);
} override_tasks SEC(".maps");

/*
 * One for all policies of the agent. A single value, so that a program looks it up once; the
 * agent maps it into its memory.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counts);
} policy_counts SEC(".maps");

/* The id of the override program of this function. */
const volatile __u32 override_id = 0;

/*
 * Whether this is on the current thread's own stack: softirqs have one of their CPU's, but for
 * those that ksoftirqd runs, and all of PREEMPT_RT, which are that thread's calls, and those that
 * interrupt user mode, where a thread is between nothing.
 */
static __always_inline bool on_threads_stack(const void *here)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 size = bpf_core_field_exists(task->kasan_depth) ? 2 * THREAD_SIZE : THREAD_SIZE;
	__u64 address = 0;

	/* As a number: the verifier calculates with no pointer to a context. */
	bpf_probe_read_kernel(&address, sizeof(address), &here);
	return address - (__u64)BPF_CORE_READ(task, stack) < size;
}

/* Whose call it is; the program's context is on the stack that the call is on. */
static __always_inline struct override_key override_key(const void *context)
{
	struct override_key key = {
		.pid_tgid = bpf_get_current_pid_tgid(),
		.override = override_id,
	};

	if (!key.pid_tgid || !on_threads_stack(context)) {
		key.pid_tgid = 0;
		key.cpu = bpf_get_smp_processor_id() + 1;
	}
	return key;
}

static __always_inline struct counts *all_counts(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&policy_counts, &zero);
}

/* The mask tells the verifier what the agent ensures. */
static __always_inline struct policy_count *count_at(struct counts *counts, __u32 place)
{
	return &counts->of[place & (POLICIES - 1)];
}

static __always_inline void add_one(__u64 *count)
{
	__sync_fetch_and_add(count, 1);
}

#endif /* HOOKPROOF_OVERRIDE_H */
