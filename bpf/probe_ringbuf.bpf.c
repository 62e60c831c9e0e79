/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Probe of the ring buffer: one record with a number that the reader must find. */
#include "probe.h"

char _license[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} records SEC(".maps");

const volatile __u64 number = 0;

SEC("kprobe")
int emit(void *ctx)
{
	__u64 *record;

	if (!mine())
		return 0;
	record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	if (!record)
		return 0;
	*record = number;
	bpf_ringbuf_submit(record, 0);
	return 0;
}
