/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Which calls are still inside a chain: goes through all tasks, and writes a record for each frame
 * whose call may be. A frame alone does not tell: where a stranger's program denied the call in
 * between, it stays until the thread comes to the hook again.
 *
 * Between two programs of a chain a task can be kept from the processor, for as long as it may be;
 * but it does not sleep, other than in the program that may, and does not run in user mode. So the
 * call is over if the task has done either since. What it has done is read first: each number only
 * grows, and what a program of the chain puts down later is no proof.
 */
#include "chain.h"

char _license[] SEC("license") = "Dual BSD/GPL";

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

struct task_struct___id {
	int pid;
};

#pragma clang attribute pop

struct record {
	__u32 epoch;
	__u32 thread;
};

static __always_inline bool is_over(const struct frame *frame, const struct spent *now)
{
	const volatile struct frame *its = frame;

	if (its->may_sleep)
		return false;
	return (__s64)(now->sleeps - its->task.sleeps) > 0 ||
	       (__s64)(now->user_time - its->task.user_time) > 0;
}

SEC("shared/iter")
int calls_inside(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct record record = {};
	struct frames *theirs;
	struct spent now;

	if (!task)
		return 0;
	theirs = bpf_task_storage_get(&frames, task, NULL, 0);
	if (!theirs)
		return 0;
	now = spent_by(task);
	record.thread = BPF_CORE_READ((struct task_struct___id *)task, pid);
	for (int i = 0; i < FRAMES; i++) {
		if (!*(volatile __u64 *)&theirs->of[i].place || is_over(&theirs->of[i], &now))
			continue;
		record.epoch = theirs->of[i].epoch;
		bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	}
	return 0;
}
