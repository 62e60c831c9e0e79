/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What is done about a call at the end of a chain, when its file's digest is known.
 */
#ifndef HOOKPROOF_JUDGE_H
#define HOOKPROOF_JUDGE_H

#include "chain.h"

struct digest_key {
	__u32 policy;
	__s32 algorithm;
	__u8 digest[DIGEST_SIZE]; /* and zeros */
};

/* The digests that policies list; one map for all hooks. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct digest_key);
	__type(value, __u32);
} digests SEC(".maps");

static __always_inline bool is_listed(const struct match *match, const struct chain_event *event)
{
	struct digest_key key = {
		.policy = match->decision.policy,
		.algorithm = event->algorithm,
	};

	__builtin_memcpy(key.digest, event->digest, DIGEST_SIZE);
	return bpf_map_lookup_elem(&digests, &key);
}

static __always_inline bool fits(const struct match *match, const struct chain_event *event)
{
	if (!(match->flags & (LISTED | UNLISTED)))
		return true;
	return is_listed(match, event) == !!(match->flags & LISTED);
}

/*
 * Decides, and writes into the event what was decided; it is for the caller to send, if any posts.
 * Returns what the hook is to return.
 */
static __always_inline int judge(const struct matches *matches, struct chain_event *event,
				 struct call *call, struct counts *counts)
{
	__s32 error;

	call->posts = 0;
	__builtin_memset(&call->decision, 0, sizeof(call->decision));
	for (int i = 0; i < RULES_PER_PATH; i++) {
		if (i >= matches->count)
			break;
		if (fits(&matches->of[i], event))
			apply(&matches->of[i].decision, matches->of[i].flags, call, counts);
	}
	conclude(&event->call, call);
	if (call->decision.signal)
		bpf_send_signal(call->decision.signal);
	error = call->decision.error;
	if (!error)
		return 0;
	add_one(&count_at(counts, call->decision.place)->denied);
	/* The kernel wants to know before that it is one: since 5d99e198be27 (6.12). */
	if (error < -MAX_ERRNO || error > -1)
		error = -1;
	return error;
}

#endif /* HOOKPROOF_JUDGE_H */
