/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The first program of an LSM hook's chain: finds the policies that fit a call, and gives it a
 * frame if there are any.
 */
#include "judge.h"

char _license[] SEC("license") = "Dual BSD/GPL";

/* How many the hook has. */
const volatile __u32 argument_count = 0;

static __always_inline void read_arguments(const __u64 *arguments, struct call *call)
{
	if (argument_count > 0)
		call->arguments[0] = arguments[0];
	if (argument_count > 1)
		call->arguments[1] = arguments[1];
	if (argument_count > 2)
		call->arguments[2] = arguments[2];
	if (argument_count > 3)
		call->arguments[3] = arguments[3];
	if (argument_count > 4)
		call->arguments[4] = arguments[4];
	if (argument_count > 5)
		call->arguments[5] = arguments[5];
}

/* Frees the frames of calls that have ended: those that have a place on the stack below ours. */
static __always_inline void forget_ended(const __u64 *arguments, struct chain *chain)
{
	struct frames *mine = my_frames(0);

	for (int i = 0; mine && i < FRAMES; i++) {
		if (!mine->of[i].place || mine->of[i].place > (__u64)arguments)
			continue;
		leave(&mine->of[i], chain);
	}
}

/*
 * A free frame, or that of the call that began first: with so few calls within each other it has
 * ended.
 */
static __always_inline struct frame *take_frame(struct chain *chain)
{
	struct frames *mine = my_frames(BPF_LOCAL_STORAGE_GET_F_CREATE);
	struct frame *oldest;

	if (!mine)
		return NULL;
	oldest = &mine->of[0];
	for (int i = 0; i < FRAMES; i++) {
		if (!mine->of[i].place)
			return &mine->of[i];
		if (mine->of[i].time < oldest->time)
			oldest = &mine->of[i];
	}
	leave(oldest, chain);
	return oldest;
}

SCRATCH(found_matches, matches)

/*
 * Finds the rules that fit the call; how many. Global, as path_walk is, so that the verifier looks
 * at it once.
 */
__noinline int find_matches(void)
{
	struct matches *matches = my_found_matches();
	const struct rules_of_path *found;
	struct counts *counts = all_counts();
	struct call *call = my_calls();
	const struct rule *rule;
	struct match *match;

	if (!matches || !call || !counts)
		return 0;
	matches->count = matches->flags = 0;
	found = rules_for(call, counts);
	for (int i = 0; found && i < RULES_PER_PATH; i++) {
		if (i >= found->count)
			break;
		rule = &found->rules[i];
		if (!rule_matches(rule, call))
			continue;
		match = &matches->of[matches->count & (RULES_PER_PATH - 1)];
		match->decision = rule->decision;
		match->flags = rule->flags;
		matches->count++;
		matches->flags |= rule->flags;
	}
	return matches->count;
}

/* Everything of the event that is known before the file is hashed. */
static __always_inline void begin(struct chain_event *event, const struct call *call, __u32 flags)
{
	struct task_struct *task = (void *)bpf_get_current_task();

	describe(&event->call, call);
	event->started = BPF_CORE_READ(task, group_leader, start_boottime);
	event->asked = !!(flags & (HASHES | LISTED | UNLISTED));
	event->algorithm = -ENODATA;
	__builtin_memset(event->digest, 0, DIGEST_SIZE);
	event->zero = 0;
	event->command_size = 0;
	if (!(flags & POSTS)) /* nobody will read it */
		return;
	if (!walk_file(BPF_CORE_READ(task, mm, exe_file)))
		path_none();
	bpf_probe_read_kernel(event->binary, PATH_SIZE, path_key());
}

/*
 * Without a frame there is no digest, and no other program: decides here and now. Returns what the
 * hook is to return. Global as well.
 */
__noinline int judge_alone(void)
{
	struct matches *matches = my_found_matches();
	struct counts *counts = all_counts();
	struct call *call = my_calls();
	struct chain_event *event;
	int error;

	if (!matches || !call || !counts)
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		add_one(&counts->calls_unseen);
		return 0;
	}
	begin(event, call, matches->flags);
	event->algorithm = -ENOMEM;
	error = judge(matches, event, call, counts);
	if (call->posts)
		bpf_ringbuf_submit(event, 0);
	else
		bpf_ringbuf_discard(event, 0);
	return error;
}

SEC("shared/lsm")
int filter(__u64 *arguments)
{
	struct chain_settings *told = my_settings();
	struct chain *chain = my_chain();
	struct counts *counts = all_counts();
	struct call *call = my_calls();
	struct matches *matches = my_found_matches();
	struct frame *frame;

	if (!told || !chain || !counts)
		return 0;
	/* What follows the path would find no rule without its scratch, not even those for all. */
	if (!call || !matches || !my_path_walks()) {
		add_one(&counts->calls_unseen);
		return 0;
	}
	forget_ended(arguments, chain);
	__builtin_memset(call, 0, sizeof(*call));
	read_arguments(arguments, call);
	if (!find_matches())
		return 0;
	frame = take_frame(chain);
	if (!frame) {
		/* Of what a function returns that it has seen by itself the verifier knows nothing.
		 */
		return as_result(judge_alone());
	}
	frame->matches = *matches;
	begin(&frame->event, call, matches->flags);
	frame->time = frame->event.call.time;
	frame->steps = FILTERED;
	frame->epoch = told->epoch;
	frame->file = (__u64)file_of(arguments);
	frame->may_sleep = 0;
	frame->task = spent_by(bpf_get_current_task_btf());
	/* Only now: others look at it, too (calls_inside.bpf.c). */
	*(volatile __u64 *)&frame->place = (__u64)arguments;
	add_one(&chain->entered[frame->epoch & 1]);
	return 0;
}
