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

char _license[] SEC("license") = "Dual BSD/GPL";

/* refagent/rules.py refuses more policies on one path of a function. */
#define RULES_PER_PATH 16

enum rule_flags {
	MONITOR = 1, /* it only counts */
};

struct rule {
	__u32 policy; /* ids grow: of those that match, the smallest was loaded first and wins */
	__u32 place;
	__s32 error;  /* 0: none */
	__u32 signal; /* 0: none */
	__u32 flags;
	/* Of the caller; a mask is all ones where the number counts, else zero. */
	__u32 pid;
	__u32 pid_mask;
	__u32 uid;
	__u32 uid_mask;
	__u32 binary; /* an id from `binaries` */
	__u32 binary_mask;
	__u32 zero;
};

/* What one path asks for. */
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

/*
 * By the beginning of a path. The longest one that fits is found, and has the rules of
 * all shorter ones that fit as well.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct path_prefix);
	__type(value, struct rules_of_path);
} prefixes SEC(".maps");

/* The programs that policies name; one map for all sensors. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(key_size, PATH_SIZE);
	__type(value, __u32);
} binaries SEC(".maps");

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

/* Whether any rule of this function asks for a binary. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} by_binary SEC(".maps");

/*
 * What is known of this call. Not on the stack: of what is in a map the verifier remembers
 * nothing, so that all ways through a round of a loop end alike, and are not multiplied.
 */
struct call {
	__u32 pid;
	__u32 uid;
	__u32 binary; /* 0: one that no policy names, or that nobody asks for */
	__u32 zero;
	struct rule winner; /* of the rules that match; its policy is 0 while there is none */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct call);
} calls SEC(".maps");

/* The id of the program that the caller runs. */
static __always_inline __u32 caller_binary(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct file *exe = BPF_CORE_READ(task, mm, exe_file);
	const char *key;
	__u32 *id;

	if (!exe)
		return 0;
	if (!path_walk((unsigned long)exe + bpf_core_field_offset(struct file, f_path)))
		return 0;
	key = path_key();
	id = key ? bpf_map_lookup_elem(&binaries, key) : NULL;
	return id ? *id : 0;
}

static __always_inline bool rule_matches(const struct rule *rule, const struct call *call)
{
	return !(((rule->pid ^ call->pid) & rule->pid_mask) |
		 ((rule->uid ^ call->uid) & rule->uid_mask) |
		 ((rule->binary ^ call->binary) & rule->binary_mask));
}

static __always_inline void count_outvoted(__u32 place)
{
	struct policy_count *count = policy_count(place);

	if (count)
		__sync_fetch_and_add(&count->outvoted, 1);
}

/* Each rule that matches counts the call; the one that decides becomes the winner. */
static __always_inline void vote(const struct rules_of_path *found, struct call *call)
{
	struct rule *winner = &call->winner;
	const struct rule *rule;
	struct policy_count *count;

	for (int i = 0; i < RULES_PER_PATH; i++) {
		if (i >= found->count)
			break;
		rule = &found->rules[i];
		if (!rule_matches(rule, call))
			continue;
		count = policy_count(rule->place);
		if (count)
			__sync_fetch_and_add(&count->matched, 1);
		if (rule->flags & MONITOR)
			continue;
		if (winner->policy && winner->policy < rule->policy) {
			count_outvoted(rule->place);
			continue;
		}
		if (winner->policy)
			count_outvoted(winner->place);
		*winner = *rule;
	}
}

/* Finds the rule that decides about this call. */
static __always_inline void find_winner(const struct pt_regs *regs, struct call *call)
{
	const struct path *path = path_of(regs);
	const struct rules_of_path *found;
	__u32 zero = 0, *asked = bpf_map_lookup_elem(&by_binary, &zero);
	void *rules = bpf_map_lookup_elem(&policies, &zero);
	const void *key;

	if (!rules)
		return;
	if (asked && *asked)
		call->binary = caller_binary();
	found = bpf_map_lookup_elem(rules, any_path);
	if (found)
		vote(found, call);
	if (!path || !path_walk((unsigned long)path))
		return;
	key = path_key();
	found = key ? bpf_map_lookup_elem(rules, key) : NULL;
	if (found)
		vote(found, call);
	key = path_as_prefix();
	found = key ? bpf_map_lookup_elem(&prefixes, key) : NULL;
	if (found)
		vote(found, call);
}

SEC("shared/kprobe")
int sensor(struct pt_regs *regs)
{
	struct override_key key = override_key();
	struct override_entry entry = {};
	struct policy_count *count;
	__u32 zero = 0;
	struct call *call = bpf_map_lookup_elem(&calls, &zero);

	if (!call)
		return 0;
	__builtin_memset(call, 0, sizeof(*call));
	call->pid = key.pid_tgid >> 32;
	call->uid = bpf_get_current_uid_gid();
	find_winner(regs, call);
	if (call->winner.signal)
		bpf_send_signal(call->winner.signal);
	if (!call->winner.error) {
		/*
		 * An entry can be left over if the override program did not get to run: another
		 * program denied the call first. It is about that call, not this one.
		 */
		bpf_map_delete_elem(&override_tasks, &key);
		return 0;
	}
	entry.error = call->winner.error;
	entry.policy = call->winner.policy;
	entry.place = call->winner.place;
	if (!bpf_map_update_elem(&override_tasks, &key, &entry, BPF_ANY))
		return 0;
	count = policy_count(entry.place);
	if (count)
		__sync_fetch_and_add(&count->lost, 1);
	return 0;
}
