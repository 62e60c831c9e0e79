/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the three programs of an LSM hook pass on: `filter` finds the policies that fit a call,
 * `ima` has the file hashed, for which it sleeps, `send` decides and tells.
 *
 * While one task's ima program sleeps, others run the whole chain, also on the same CPU, and the
 * same thread may come here again from within it (a file opened for writing is opened once more
 * to be hashed). So each call has a frame of its own, which is the thread's, by the address of the
 * call's arguments on the kernel stack: all programs of one call are given the same, and a call
 * within a call has a lower one. A frame whose call was denied in the middle of the chain by a
 * stranger is found by that too: its place on the stack is free again, or somebody else's.
 */
#ifndef HOOKPROOF_CHAIN_H
#define HOOKPROOF_CHAIN_H

#define SCRATCH_OF_THE_TASK
#include "rules.h"

/* SHA-512's, the longest that IMA has. */
#define DIGEST_SIZE 64

#define COMMAND_SIZE 256

/* Calls of one thread within each other are two at most: the hash's own opening of a file. */
#define FRAMES 3

/* More rule_flags. */
enum {
	HASHES = 4,   /* the event is to have the digest */
	LISTED = 8,   /* matches only a file whose digest is in the policy's list */
	UNLISTED = 16 /* matches only one whose digest is not, or that has none */
};

struct chain_event {
	struct event call;
	__u64 started;	 /* the process: nanoseconds since the boot */
	__s32 algorithm; /* enum hash_algo of the kernel, or a negative errno: there is no digest */
	__u32 asked;	 /* for a digest */
	__u8 digest[DIGEST_SIZE];
	char binary[PATH_SIZE]; /* that the process runs */
	__u32 zero;
	__u32 command_size;
	char command[COMMAND_SIZE]; /* its arguments, each with its NUL */
};

/* What a task has done only outside of programs that may not sleep. */
struct spent {
	__u64 sleeps;
	__u64 user_time;
};

/* A rule that fits the call, if it fits the digest. */
struct match {
	struct decision decision;
	__u32 flags;
};

struct matches {
	__u32 count;
	__u32 flags; /* of all of them */
	struct match of[RULES_PER_PATH];
};

struct frame {
	__u64 place;	   /* on the kernel stack; 0: nobody's */
	struct spent task; /* has done so much when a program of the chain last was at work */
	__u32 may_sleep;   /* it is in the program that may */
	__u32 zero;
	__u64 file; /* the address of the call's, if it has one */
	__u64 time;
	__u32 steps; /* which programs have run, two bits for each */
	__u32 epoch;
	struct matches matches;
	struct chain_event event;
};

struct frames {
	struct frame of[FRAMES];
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct frames);
} frames SEC(".maps");

/* What the agent tells the programs of this hook. */
struct chain_settings {
	__u32 epoch; /* 0 or 1; turned over to know when all calls that began before have ended */
};

/* The policy of calls that the agent makes itself, to see that all works. */
#define NOBODY 0xffffffff

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct chain_settings);
} settings SEC(".maps");

/* What they tell it; calls are counted by the epoch in which they were given a frame. */
struct chain {
	__u64 entered[2]; /* calls that were given a frame */
	__u64 left[2];	  /* and that came to the end of the chain, or were found not to */
	__u64 hashing[2]; /* tasks in the ima program */
	__u64 proofs;	  /* calls of the agent's own; the rest is of the last one */
	__u32 steps;
	__s32 algorithm;
	__u8 digest[DIGEST_SIZE];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct chain);
} chains SEC(".maps");

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct task_struct___spent {
	__u64 utime;
	unsigned long nvcsw;
};

#pragma clang attribute pop

static __always_inline struct spent spent_by(const void *task)
{
	const struct task_struct___spent *its = task;
	struct spent spent = {
		.sleeps = BPF_CORE_READ(its, nvcsw),
		.user_time = BPF_CORE_READ(its, utime),
	};

	return spent;
}

enum step {
	FILTERED = 1,
	HASHED,
	SENT,
};

static __always_inline struct chain *my_chain(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&chains, &zero);
}

static __always_inline struct chain_settings *my_settings(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

static __always_inline struct frames *my_frames(__u64 flags)
{
	return bpf_task_storage_get(&frames, bpf_get_current_task_btf(), NULL, flags);
}

/* What the hook's first argument is: the file, or it has it, or neither. */
const volatile __u32 file_kind = NO_PATH;

/* The call's file, as helpers take it: the verifier knows where it is from. */
static __always_inline struct file *file_of(const __u64 *arguments)
{
	if (file_kind == STRUCT_BPRM)
		return ((struct linux_binprm *)arguments[0])->file;
	return file_kind == STRUCT_FILE ? (struct file *)arguments[0] : NULL;
}

/*
 * The frame of the call whose arguments these are. Their place alone would do as long as the
 * filter runs first, and frees what is there; that it does is found out by the agent.
 */
static __always_inline struct frame *frame_of(const __u64 *arguments)
{
	struct frames *mine = my_frames(0);
	__u64 file = (__u64)file_of(arguments);

	for (int i = 0; mine && i < FRAMES; i++)
		if (mine->of[i].place == (__u64)arguments && mine->of[i].file == file)
			return &mine->of[i];
	return NULL;
}

static __always_inline void take_step(struct frame *frame, enum step step)
{
	frame->steps = frame->steps << 2 | step;
}

/* Gives a frame back. */
static __always_inline void leave(struct frame *frame, struct chain *chain)
{
	frame->place = 0;
	add_one(&chain->left[frame->epoch & 1]);
}

/* What came of a call of the agent's own; others may pass meanwhile. */
static __always_inline void prove(struct chain *chain, const struct frame *frame)
{
	if (frame->matches.of[0].decision.policy != NOBODY)
		return;
	chain->steps = frame->steps;
	chain->algorithm = frame->event.algorithm;
	__builtin_memcpy(chain->digest, frame->event.digest, DIGEST_SIZE);
	add_one(&chain->proofs);
}

#endif /* HOOKPROOF_CHAIN_H */
