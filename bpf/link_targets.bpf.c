/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Which kernel function a tracing link is on, for kernels before 5.13, which do not say
 * (441e8c66b23e made BPF_OBJ_GET_INFO_BY_FD do so).
 *
 * Goes through the open files of one process, which holds descriptors of the links it asks
 * about, and writes a record for each. A file that is no link gives a record that means
 * nothing: the reader picks those of its links.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

char _license[] SEC("license") = "Dual BSD/GPL";

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct task_struct___pid {
	int tgid;
};

struct file___private {
	void *private_data;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct___pid *task;
	__u32 fd;
	struct file___private *file;
};

struct bpf_prog_aux {
	__u32 attach_btf_id;
};

struct bpf_prog {
	struct bpf_prog_aux *aux;
};

struct bpf_link {
	struct bpf_prog *prog;
};

#pragma clang attribute pop

/* The process that asks. */
const volatile __u32 tgid = 0;

struct record {
	__u32 fd;
	__u32 btf_id;
};

SEC("iter/task_file")
int link_targets(struct bpf_iter__task_file *ctx)
{
	struct file___private *file = ctx->file;
	struct task_struct___pid *task = ctx->task;
	struct bpf_link *link;
	struct record record = {};

	if (!file || !task || task->tgid != tgid)
		return 0;
	link = BPF_CORE_READ(file, private_data);
	record.fd = ctx->fd;
	record.btf_id = BPF_CORE_READ(link, prog, aux, attach_btf_id);
	bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	return 0;
}
