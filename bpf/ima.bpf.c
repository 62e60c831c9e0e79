/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The second program of an LSM hook's chain, the one that may sleep: has the file hashed, and
 * reads the process's arguments, whose page may not be in memory.
 */
#include "chain.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/*
 * Whether IMA is asked for a digest that it has already (5.11), where the kernel does not have the
 * helper that lets it take one (5.18). What is not asked for is no part of the program that runs.
 */
const volatile __u32 by_inode = 0;

static __always_inline void hash(struct file *file, struct chain_event *event)
{
	if (!file)
		event->algorithm = -ENOENT;
	else if (by_inode)
		event->algorithm = bpf_ima_inode_hash(file->f_inode, event->digest, DIGEST_SIZE);
	else
		event->algorithm = bpf_ima_file_hash(file, event->digest, DIGEST_SIZE);
}

static __always_inline void read_command(struct chain_event *event)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	unsigned long start = BPF_CORE_READ(task, mm, arg_start);
	unsigned long end = BPF_CORE_READ(task, mm, arg_end);
	__u64 size = end - start;

	if (size > COMMAND_SIZE)
		size = COMMAND_SIZE;
	if (!bpf_copy_from_user(event->command, size, (void *)start))
		event->command_size = size;
}

SEC("shared/lsm.s")
int ima(__u64 *arguments)
{
	struct frame *frame = frame_of(arguments);
	struct chain *chain = my_chain();

	if (!frame || !chain)
		return 0;
	*(volatile __u32 *)&frame->may_sleep = 1;
	add_one(&chain->hashing[frame->epoch & 1]);
	take_step(frame, HASHED);
	if (frame->event.asked)
		hash(file_of(arguments), &frame->event);
	if (frame->matches.flags & POSTS)
		read_command(&frame->event);
	frame->task = spent_by(bpf_get_current_task_btf());
	/* A barrier as well: who sees 0 there sees the above. */
	__sync_fetch_and_add(&chain->hashing[frame->epoch & 1], -1);
	*(volatile __u32 *)&frame->may_sleep = 0;
	return 0;
}
