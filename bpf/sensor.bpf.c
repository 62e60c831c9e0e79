/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Watches one kernel function for all policies on it: resolves the call's path once,
 * looks it up, and tells the function's override program what to do with this call.
 *
 * A kprobe runs before the function's trampoline, and kprobes do not count towards the
 * number of programs that fit on it.
 */
#include "override.h"
#include "path.h"

/* refagent/sensor.py refuses more policies on one path of a function. */
#define RULES_PER_PATH 16

char _license[] SEC("license") = "Dual BSD/GPL";

struct rule {
	__s32 error;
	__u32 policy; /* ids grow: of those that match, the smallest was loaded first and wins */
	__u32 place;
	__u32 zero;
};

/* What one path asks for; the first rule is the one with the smallest id. */
struct rules_of_path {
	__u32 count;
	__u32 zero;
	struct rule rules[RULES_PER_PATH];
};

struct rules {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__uint(key_size, PATH_SIZE);
	__uint(value_size, sizeof(struct rules_of_path));
};

/*
 * One slot, so that the agent can put a larger table in place of a full one between two
 * calls. Writing the slot also makes the kernel wait until no program uses the old content.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct rules);
} policies SEC(".maps");

/* The key of rules that match every call: no path is empty. */
const char any_path[PATH_SIZE] = {};

/* Which argument of the function is its struct path, from 0; or none of them. */
const volatile __u32 path_argument = 0;

static __always_inline const struct path *path_of(const struct pt_regs *regs)
{
	unsigned long value = 0;

	switch (path_argument) {
	case 0:
		value = BPF_CORE_READ(regs, di);
		break;
	case 1:
		value = BPF_CORE_READ(regs, si);
		break;
	case 2:
		value = BPF_CORE_READ(regs, dx);
		break;
	case 3:
		value = BPF_CORE_READ(regs, cx);
		break;
	case 4:
		value = BPF_CORE_READ(regs, r8);
		break;
	case 5:
		value = BPF_CORE_READ(regs, r9);
		break;
	}
	return (const void *)value;
}

/* All policies that match count it; those that do not decide, as outvoted. */
static __always_inline void count_matches(const struct rules_of_path *found, __u32 winner)
{
	struct policy_count *count;

	for (int i = 0; i < RULES_PER_PATH && i < found->count; i++) {
		count = policy_count(found->rules[i].place);
		if (!count)
			continue;
		__sync_fetch_and_add(&count->matched, 1);
		if (found->rules[i].policy != winner)
			__sync_fetch_and_add(&count->outvoted, 1);
	}
}

/* The rule that decides about this call, or NULL. */
static __always_inline const struct rule *find_rule(const struct pt_regs *regs)
{
	const struct rules_of_path *any, *exact = NULL;
	const struct path *path = path_of(regs);
	const struct rule *winner;
	const char *key;
	__u32 zero = 0;
	void *rules = bpf_map_lookup_elem(&policies, &zero);

	if (!rules)
		return NULL;
	any = bpf_map_lookup_elem(rules, any_path);
	key = path ? path_resolve(path) : NULL;
	if (key)
		exact = bpf_map_lookup_elem(rules, key);
	if (any && exact)
		winner = any->rules[0].policy < exact->rules[0].policy ? any->rules : exact->rules;
	else if (any || exact)
		winner = any ? any->rules : exact->rules;
	else
		return NULL;
	if (any)
		count_matches(any, winner->policy);
	if (exact)
		count_matches(exact, winner->policy);
	return winner;
}

SEC("shared/kprobe")
int sensor(struct pt_regs *regs)
{
	struct override_key key = override_key();
	const struct rule *rule = find_rule(regs);
	struct override_entry entry = {};
	struct policy_count *count;

	if (!rule) {
		/*
		 * An entry can be left over if the override program did not get to run: another
		 * program denied the call first. It is about that call, not this one.
		 */
		bpf_map_delete_elem(&override_tasks, &key);
		return 0;
	}
	entry.error = rule->error;
	entry.policy = rule->policy;
	entry.place = rule->place;
	if (!bpf_map_update_elem(&override_tasks, &key, &entry, BPF_ANY))
		return 0;
	count = policy_count(entry.place);
	if (count)
		__sync_fetch_and_add(&count->lost, 1);
	return 0;
}
