/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Somebody else's program on an LSM hook: it lets all calls pass, or denies all. */
#include "kernel.h"
#include <bpf/bpf_helpers.h>

char _license[] SEC("license") = "Dual BSD/GPL";

/* What it denies with, negative; 0: it does not. */
const volatile __s32 error = 0;

SEC("shared/lsm")
int foreign(void *ctx)
{
	int result = error;

	/* The kernel asks for that since 5d99e198be27 (6.12). */
	return result < -4095 || result > 0 ? -1 : result;
}
