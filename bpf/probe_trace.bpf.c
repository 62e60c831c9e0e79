/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Probes of programs at kernel functions: changing what they return, and who runs first. */
#include "probe.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* A system call's function returns long: an int here would come out as a positive number. */
SEC("fmod_ret")
long deny(void *ctx)
{
	return mine() ? error : 0;
}

SEC("kprobe")
int override_return(struct pt_regs *regs)
{
	if (mine())
		bpf_override_return(regs, error);
	return 0;
}

/* Slot 0 counts, slots 1 and 2 say as which the programs ran. */
SEC("fmod_ret")
int order_first(void *ctx)
{
	if (mine())
		put(1, count(0));
	return 0;
}

SEC("fmod_ret")
int order_second(void *ctx)
{
	if (mine())
		put(2, count(0));
	return 0;
}
