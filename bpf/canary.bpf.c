/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Loaded twice on one LSM hook, it shows in which order this kernel runs what is attached there. */
#include "probe.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* Which of the two, from 1. */
const volatile __u32 attached_as = 0;

/* Slot 0 counts, slots 1 and 2 say as which the programs ran. */
SEC("shared/lsm")
int canary(void *ctx)
{
	if (mine())
		put(attached_as, count(0));
	return 0;
}
