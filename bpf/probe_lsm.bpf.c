/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Probes of LSM programs: whether they fire, may sleep, and get hashes from IMA. */
#include "probe.h"
#include <bpf/bpf_core_read.h>

char _license[] SEC("license") = "Dual BSD/GPL";

/* The file whose execution counts. */
const volatile __u64 inode_number = 0;

SEC("lsm/task_getpgid")
int deny(void *ctx)
{
	return mine() ? error : 0;
}

/* The one hook at which 5.10 lets a program sleep. */
SEC("lsm.s/bprm_committed_creds")
int sleepable(void *ctx)
{
	count(0);
	return 0;
}

/* Slot 0: calls. Slot 1: the algorithm, or a negative errno. Slots 2 to 5: the digest's first 32
 * bytes. */
static __always_inline void report(__s64 algorithm, const __u64 *digest)
{
	put(1, algorithm);
	put(2, digest[0]);
	put(3, digest[1]);
	put(4, digest[2]);
	put(5, digest[3]);
	count(0);
}

SEC("lsm.s/bprm_check_security")
int file_hash(__u64 *ctx)
{
	struct linux_binprm *bprm = (void *)ctx[0];
	struct file *file = bprm->file;
	__u64 digest[8] = {};

	if (BPF_CORE_READ(file, f_inode, i_ino) == inode_number)
		report(bpf_ima_file_hash(file, digest, sizeof(digest)), digest);
	return 0;
}

SEC("lsm.s/bprm_check_security")
int inode_hash(__u64 *ctx)
{
	struct linux_binprm *bprm = (void *)ctx[0];
	struct inode *inode = bprm->file->f_inode;
	__u64 digest[8] = {};

	if (BPF_CORE_READ(inode, i_ino) == inode_number)
		report(bpf_ima_inode_hash(inode, digest, sizeof(digest)), digest);
	return 0;
}
