/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Watches one kernel function for all policies on it: resolves the call's path once,
 * looks it up, and tells the function's override program what to do with this call.
 *
 * A kprobe runs before the function's trampoline, and kprobes do not count towards the
 * number of programs that fit on it.
 */
#include "rules.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* The function is a system call's: its one argument has the caller's registers. */
const volatile bool system_call = false;

/* There is no override program: the kernel lets a kprobe change this function's result. */
const volatile bool by_kprobe = false;

static __always_inline void read_arguments(struct pt_regs *regs, struct call *call)
{
	if (system_call) {
		regs = (void *)BPF_CORE_READ(regs, di);
		call->arguments[3] = BPF_CORE_READ(regs, r10);
	} else {
		call->arguments[3] = BPF_CORE_READ(regs, cx);
	}
	call->arguments[0] = BPF_CORE_READ(regs, di);
	call->arguments[1] = BPF_CORE_READ(regs, si);
	call->arguments[2] = BPF_CORE_READ(regs, dx);
	call->arguments[4] = BPF_CORE_READ(regs, r8);
	call->arguments[5] = BPF_CORE_READ(regs, r9);
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

/* Has the function return the errno that was decided for, instead of doing what it does. */
static __always_inline void deny(struct pt_regs *regs, const struct override_key *key,
				 const struct decision *decision, struct counts *counts)
{
	struct override_entry entry = {
		.error = decision->error,
		.policy = decision->policy,
		.place = decision->place,
	};
	struct policy_count *count = count_at(counts, entry.place);

	if (by_kprobe) {
		bpf_override_return(regs, (long)entry.error);
		add_one(&count->denied);
		return;
	}
	if (bpf_map_update_elem(&override_tasks, key, &entry, BPF_ANY))
		add_one(&count->lost);
}

SEC("shared/kprobe")
int sensor(struct pt_regs *regs)
{
	struct override_key key = override_key();
	struct call *call = my_calls();
	struct counts *counts = all_counts();
	const struct rules_of_path *found;

	if (!call || !counts)
		return 0;
	__builtin_memset(call, 0, sizeof(*call));
	read_arguments(regs, call);
	found = rules_for(call, key.pid_tgid, counts);
	if (found)
		decide(found, call, counts);
	if (call->posts)
		post(call, counts);
	if (call->decision.signal)
		bpf_send_signal(call->decision.signal);
	if (call->decision.error)
		deny(regs, &key, &call->decision, counts);
	else if (!by_kprobe)
		/*
		 * An entry can be left over if the override program did not get to run: another
		 * program denied the call first. It is about that call, not this one.
		 */
		bpf_map_delete_elem(&override_tasks, &key);
	return 0;
}
