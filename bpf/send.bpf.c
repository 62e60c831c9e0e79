/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The last program of an LSM hook's chain: decides, tells, and gives the call's frame back.
 */
#include "judge.h"

char _license[] SEC("license") = "Dual BSD/GPL";

SEC("shared/lsm")
int send(__u64 *arguments)
{
	struct frame *frame = frame_of(arguments);
	struct chain *chain = my_chain();
	struct counts *counts = all_counts();
	struct call *call = my_calls();
	int error;

	if (!frame || !chain || !counts)
		return 0;
	take_step(frame, SENT);
	prove(chain, frame);
	if (call) {
		error = judge(&frame->matches, &frame->event, call, counts);
		if (call->posts &&
		    bpf_ringbuf_output(&events, &frame->event, sizeof(frame->event), 0))
			add_one(&counts->events_lost);
	} else {
		add_one(&counts->calls_unseen);
		error = 0;
	}
	leave(frame, chain);
	return error;
}
