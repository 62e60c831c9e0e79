/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A gate between a function's sensor and its override program: kprobes and fentry programs run
 * before the fmod_ret programs, and of these the one that was attached last runs first. It may end
 * the call there, as a program of somebody else's would; then the override program does not run.
 */
#include "gate.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* What the call that was held returns, negative, or 0: it goes on. */
const volatile __s32 error = 0;

SEC("shared/fmod_ret")
long gate(void *ctx)
{
	return hold() ? error : 0;
}
