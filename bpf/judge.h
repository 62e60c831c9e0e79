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

/* Whether a match that asks for the digest fits this one, whose policy is still to be put in. */
static __always_inline bool fits(const struct match *match, struct digest_key *key)
{
	if (!(match->flags & (LISTED | UNLISTED)))
		return true;
	key->policy = match->decision.policy;
	return !!bpf_map_lookup_elem(&digests, key) == !!(match->flags & LISTED);
}

/* An errno or 0, and known to be: the kernel asks for that since 5d99e198be27 (6.12). */
static __always_inline int as_result(int error)
{
	if (error < -MAX_ERRNO)
		return -1;
	/* Else clang makes one comparison of both, of unsigned numbers, which no verifier follows.
	 */
	asm volatile("" : "+r"(error));
	return error > 0 ? -1 : error;
}

/*
 * Decides, and writes into the event what was decided; it is for the caller to send, if any posts.
 * Returns what the hook is to return.
 */
static __always_inline int judge(const struct matches *matches, struct chain_event *event,
				 struct call *call, struct counts *counts)
{
	struct digest_key key = {.algorithm = event->algorithm};

	__builtin_memcpy(key.digest, event->digest, DIGEST_SIZE);
	call->posts = 0;
	__builtin_memset(&call->decision, 0, sizeof(call->decision));
	for (int i = 0; i < RULES_PER_PATH; i++) {
		if (i >= matches->count)
			break;
		if (fits(&matches->of[i], &key))
			apply(&matches->of[i].decision, matches->of[i].flags, call, counts);
	}
	conclude(&event->call, call);
	if (call->decision.signal)
		bpf_send_signal(call->decision.signal);
	if (call->decision.error)
		add_one(&count_at(counts, call->decision.place)->denied);
	return as_result(call->decision.error);
}

#endif /* HOOKPROOF_JUDGE_H */
