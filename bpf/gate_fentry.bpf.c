/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* A gate at the entry of any kernel function, also one that programs themselves call. */
#include "gate.h"

char _license[] SEC("license") = "Dual BSD/GPL";

SEC("shared/fentry")
int gate_fentry(void *ctx)
{
	hold();
	return 0;
}
