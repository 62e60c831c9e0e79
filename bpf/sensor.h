/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Watches one kernel function for all policies on it: resolves the call's path once,
 * looks it up, and tells the function's override program what to do with this call.
 * The programs that do it differ in how they are called: sensor.bpf.c, sensor_fentry.bpf.c.
 */
#ifndef HOOKPROOF_SENSOR_H
#define HOOKPROOF_SENSOR_H

#include "rules.h"

/* The function is a system call's: its one argument has the caller's registers. */
const volatile bool system_call = false;

/* And these are a 32-bit program's, of which the kernel takes no more than 32 bits each. */
const volatile bool ia32 = false;

static __always_inline void read_registers(const struct pt_regs *regs, struct call *call)
{
	call->arguments[0] = BPF_CORE_READ(regs, di);
	call->arguments[1] = BPF_CORE_READ(regs, si);
	call->arguments[2] = BPF_CORE_READ(regs, dx);
	call->arguments[3] = BPF_CORE_READ(regs, cx);
	call->arguments[4] = BPF_CORE_READ(regs, r8);
	call->arguments[5] = BPF_CORE_READ(regs, r9);
}

/* The arguments of a system call, from the registers that its caller had. */
static __always_inline void read_callers_registers(const struct pt_regs *regs, struct call *call)
{
	if (ia32) {
		call->arguments[0] = (__u32)BPF_CORE_READ(regs, bx);
		call->arguments[1] = (__u32)BPF_CORE_READ(regs, cx);
		call->arguments[2] = (__u32)BPF_CORE_READ(regs, dx);
		call->arguments[3] = (__u32)BPF_CORE_READ(regs, si);
		call->arguments[4] = (__u32)BPF_CORE_READ(regs, di);
		call->arguments[5] = (__u32)BPF_CORE_READ(regs, bp);
		return;
	}
	read_registers(regs, call);
	call->arguments[3] = BPF_CORE_READ(regs, r10);
}

static __always_inline void decide(const struct rules_of_path *found, struct call *call,
				   struct counts *counts)
{
	const struct rule *rule;

	for (int i = 0; i < RULES_PER_PATH; i++) {
		if (i >= found->count)
			break;
		rule = &found->rules[i];
		if (rule_matches(rule, call))
			apply(&rule->decision, rule->flags, call, counts);
	}
}

static __always_inline void post(const struct call *call, struct counts *counts)
{
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		add_one(&counts->events_lost);
		return;
	}
	describe(event, call);
	conclude(event, call);
	bpf_ringbuf_submit(event, 0);
}

/* A call of which nothing is known yet; the program reads its arguments then. */
static __always_inline struct call *begin_call(void)
{
	struct call *call = my_calls();

	if (call)
		__builtin_memset(call, 0, sizeof(*call));
	return call;
}

/* Finds what is to be done about a call, and does all of it but the override. */
static __always_inline void judge_call(struct call *call, struct counts *counts)
{
	const struct rules_of_path *found = rules_for(call, counts);

	if (found)
		decide(found, call, counts);
	if (call->posts)
		post(call, counts);
	if (call->decision.signal)
		bpf_send_signal(call->decision.signal);
}

/* Leaves the errno that was decided for to the override program. */
static __always_inline void tell_override(const struct override_key *key, const struct call *call,
					  struct counts *counts)
{
	struct override_entry entry = {
		.error = call->decision.error,
		.policy = call->decision.policy,
		.place = call->decision.place,
	};

	if (!entry.error)
		/*
		 * An entry can be left over if the override program did not get to run: another
		 * program denied the call first. It is about that call, not this one.
		 */
		bpf_map_delete_elem(&override_tasks, key);
	else if (bpf_map_update_elem(&override_tasks, key, &entry, BPF_ANY))
		add_one(&count_at(counts, entry.place)->lost);
}

#endif /* HOOKPROOF_SENSOR_H */
