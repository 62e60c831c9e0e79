/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What a program knows of the policies of its function, and which of them fit a call.
 */
#ifndef HOOKPROOF_RULES_H
#define HOOKPROOF_RULES_H

#include "override.h"
#include "path.h"

/* refagent/rules.py refuses more policies that fit one path. */
#define RULES_PER_PATH 16

#define ARGUMENTS 6

enum rule_flags {
	DECIDES = 1, /* about the call, unless a rule before it has; else it only looks on */
	POSTS = 2,   /* the call gives an event */
};

/* What is done about a call, and for whose sake. */
struct decision {
	__u32 policy;
	__u32 place;
	__s32 error;  /* 0: none */
	__u32 signal; /* 0: none */
};

struct rule {
	struct decision decision;
	__u32 flags;
	__u32 argument;
	/* Of the caller; a mask is all ones where the number counts, else zero. */
	__u32 pid;
	__u32 pid_mask;
	__u32 uid;
	__u32 uid_mask;
	__u32 binary; /* an id from `binaries` */
	__u32 binary_mask;
	__u64 value; /* of the argument */
	__u64 value_mask;
};

/* All that fits a path, in the order in which the policies were loaded. */
struct rules_of_path {
	__u32 count;
	__u32 zero;
	struct rule rules[RULES_PER_PATH];
};

/*
 * By the beginning of a path, of which the longest that fits is found. The beginning of a whole
 * path has the NUL at its end; the empty beginning fits every call, also one that has no path.
 */
struct rules {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(struct path_prefix));
	__uint(value_size, sizeof(struct rules_of_path));
};

/*
 * One slot, so that the agent can put another table in place of one between two calls. Writing
 * the slot also makes the kernel wait until no program uses the old content.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct rules);
} policies SEC(".maps");

/* The programs that policies name; one map for all sensors. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(key_size, PATH_SIZE);
	__type(value, __u32);
} binaries SEC(".maps");

/* Whether any rule of this function asks for a binary. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} by_binary SEC(".maps");

/* A call about which some policy wants to be told. Python has it in refagent/layout.py. */
struct event {
	__u64 time; /* nanoseconds of the monotonic clock */
	__u64 pid_tgid;
	__u64 arguments[ARGUMENTS];
	struct decision decision; /* its policy is 0: nothing was decided */
	__u32 uid;
	__u32 function; /* the override's id, which is the function's */
	__u32 count;	/* of the policies that posted */
	__u32 zero;
	__u32 policies[RULES_PER_PATH];
	char comm[16];
	char path[PATH_SIZE];
};

/* One for all sensors. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} events SEC(".maps");

/* How the function's path is found. */
enum path_kind {
	NO_PATH,
	STRUCT_PATH,
	STRUCT_FILE,
	STRUCT_BPRM,
	USER_STRING,
};

const volatile __u32 path_kind = NO_PATH;

/* Which argument it is, from 0. */
const volatile __u32 path_argument = 0;

/*
 * What is known of this call. Not on the stack: of what is in a map the verifier remembers
 * nothing, so that all ways through a round of a loop end alike, and are not multiplied.
 */
struct call {
	__u64 arguments[8]; /* of which ARGUMENTS are used; so many that a mask bounds the index */
	__u32 pid;
	__u32 uid;
	__u32 binary; /* 0: one that no policy names, or that nobody asks for */
	__u32 posts;
	struct decision decision; /* its policy is 0 while there is none */
	__u32 posting[RULES_PER_PATH];
};

SCRATCH(calls, call)

static __always_inline int walk_file(const struct file *file)
{
	return file ? path_walk((unsigned long)file + bpf_core_field_offset(struct file, f_path))
		    : 0;
}

/* Whether the call has a path that can be matched; path_key has it. */
static __always_inline bool read_path(const struct call *call)
{
	unsigned long argument = call->arguments[path_argument & 7];
	const struct linux_binprm *bprm = (void *)argument;

	switch (path_kind) {
	case STRUCT_PATH:
		return path_walk(argument);
	case STRUCT_FILE:
		return walk_file((void *)argument);
	case STRUCT_BPRM:
		return walk_file(BPF_CORE_READ(bprm, file));
	case USER_STRING:
		return path_from_user(argument);
	}
	return false;
}

/* The id of the program that the caller runs. */
static __always_inline __u32 caller_binary(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	const char *key;
	__u32 *id;

	if (!walk_file(BPF_CORE_READ(task, mm, exe_file)))
		return 0;
	key = path_key();
	id = key ? bpf_map_lookup_elem(&binaries, key) : NULL;
	return id ? *id : 0;
}

/* What fits the path that was taken last. */
static __always_inline const struct rules_of_path *find_rules(void)
{
	__u32 zero = 0;
	void *table = bpf_map_lookup_elem(&policies, &zero);
	const void *key = path_as_prefix();

	return table && key ? bpf_map_lookup_elem(table, key) : NULL;
}

static __always_inline bool rule_matches(const struct rule *rule, const struct call *call)
{
	__u64 value = call->arguments[rule->argument & 7];

	return !(((rule->pid ^ call->pid) & rule->pid_mask) |
		 ((rule->uid ^ call->uid) & rule->uid_mask) |
		 ((rule->binary ^ call->binary) & rule->binary_mask) |
		 ((rule->value ^ value) & rule->value_mask));
}

/* Finds the rules for a call whose arguments are known; fills in what they ask for. */
static __always_inline const struct rules_of_path *rules_for(struct call *call,
							     struct counts *counts)
{
	__u32 zero = 0, *asked = bpf_map_lookup_elem(&by_binary, &zero);

	call->pid = bpf_get_current_pid_tgid() >> 32;
	call->uid = bpf_get_current_uid_gid();
	if (asked && *asked)
		call->binary = caller_binary();
	if (!read_path(call)) {
		path_none();
		if (path_kind != NO_PATH)
			add_one(&counts->paths_unread);
	}
	return find_rules();
}

/* Counts a call that matches; the first of the rules that decide does. */
static __always_inline void apply(const struct decision *decision, __u32 flags, struct call *call,
				  struct counts *counts)
{
	struct policy_count *count = count_at(counts, decision->place);

	add_one(&count->matched);
	/* Without a branch, which would be one more way for the verifier to go. */
	call->posting[call->posts & (RULES_PER_PATH - 1)] = decision->policy;
	call->posts += !!(flags & POSTS);
	if (!(flags & DECIDES))
		return;
	if (call->decision.policy)
		add_one(&count->outvoted);
	else
		call->decision = *decision;
}

/* Everything of an event but what the policies made of the call. */
static __always_inline void describe(struct event *event, const struct call *call)
{
	const char *path = path_key();

	event->time = bpf_ktime_get_ns();
	event->pid_tgid = bpf_get_current_pid_tgid();
	event->uid = call->uid;
	event->function = override_id;
	event->zero = 0;
	__builtin_memcpy(event->arguments, call->arguments, sizeof(event->arguments));
	bpf_get_current_comm(event->comm, sizeof(event->comm));
	bpf_probe_read_kernel(event->path, sizeof(event->path), path);
}

/* What the policies made of it. */
static __always_inline void conclude(struct event *event, const struct call *call)
{
	event->decision = call->decision;
	event->count = call->posts;
	__builtin_memcpy(event->policies, call->posting, sizeof(event->policies));
}

#endif /* HOOKPROOF_RULES_H */
