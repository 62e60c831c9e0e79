/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The sensor as a kprobe: it runs before the function's trampoline, and kprobes do not count
 * towards the number of programs that fit on it.
 */
#include "sensor.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* There is no override program: the kernel lets a kprobe change this function's result. */
const volatile bool by_kprobe = false;

/* Has the function return the errno that was decided for, instead of doing what it does. */
static __always_inline void deny(struct pt_regs *regs, const struct call *call,
				 struct counts *counts)
{
	if (!call->decision.error)
		return;
	bpf_override_return(regs, (long)call->decision.error);
	add_one(&count_at(counts, call->decision.place)->denied);
}

SEC("shared/kprobe")
int sensor(struct pt_regs *regs)
{
	struct override_key key = override_key(regs);
	struct call *call = begin_call();
	struct counts *counts = all_counts();

	if (!call || !counts)
		return 0;
	if (system_call)
		read_callers_registers((void *)BPF_CORE_READ(regs, di), call);
	else
		read_registers(regs, call);
	judge_call(call, counts);
	if (by_kprobe)
		deny(regs, call, counts);
	else
		tell_override(&key, call, counts);
	return 0;
}
