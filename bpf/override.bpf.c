/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The one program that changes what a kernel function returns, however many
 * policies ask for it. It knows no policy: it takes the entry that a sensor left
 * for this thread a moment ago, at the same function's entry, and only if the
 * entry carries its own id.
 */
#include "override.h"

char _license[] SEC("license") = "Dual BSD/GPL";

SEC("shared/fmod_ret")
long override(void *ctx)
{
	struct override_key key = override_key(ctx);
	struct override_entry *entry = bpf_map_lookup_elem(&override_tasks, &key);
	struct counts *counts = all_counts();
	long error;

	if (!entry)
		return 0;
	error = entry->error; /* to 64 bits, for a system call's caller looks at all of them */
	if (counts)
		add_one(&count_at(counts, entry->place)->denied);
	bpf_map_delete_elem(&override_tasks, &key);
	/* The kernel does not check what fmod_ret returns: a caller would take 1 for a success. */
	if (error < -MAX_ERRNO || error > -1)
		error = -1;
	return error;
}
