/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The absolute path of a struct path, in the kernel, on every kernel from 5.10.
 *
 * It is the path from the root of the mount namespace: names are collected from
 * the dentry upwards, at the root of a mount the walk goes on at its mount point.
 * - chroot is not seen: a process in /srv/jail that makes /a is at /srv/jail/a.
 * - A bind mount is seen as what it is mounted on, not as what it shows.
 * - A deleted file or directory has the name it had last.
 * - What hangs on no mount of a namespace (lazily unmounted, a disconnected dentry
 *   of a network file system, a pipe or socket) has no path and matches none.
 * - Renames during the walk are not locked out, as they are for d_path: a call that
 *   races with a rename of one of its own directories may match neither name.
 */
#ifndef HOOKPROOF_PATH_H
#define HOOKPROOF_PATH_H

#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

/* Bytes of a path with its final NUL; the rest of a key is zero. */
#define PATH_SIZE 256

/* Names and mounts on the way up; refagent/layout.py refuses policies with more names than 64. */
#define PATH_STEPS 80

/*
 * The path is written from behind and ends at text[PATH_SIZE - 1], which is NUL, as is
 * all that follows. So the PATH_SIZE bytes at text[at] are a padded key without being moved.
 *
 * All state is kept here and read anew in each round: the verifier then finds that all ways
 * through a round end alike, and does not multiply them.
 */
struct path_walk {
	struct dentry *dentry;
	struct mount *mount;
	__u32 at;
	__u32 zero;
	char text[2 * PATH_SIZE];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct path_walk);
} path_walks SEC(".maps");

static __always_inline struct mount *mount_of(struct vfsmount *mnt)
{
	return (void *)mnt - bpf_core_field_offset(struct mount, mnt);
}

/* Puts one name and a slash before what is there. Returns false if there is no room. */
static __always_inline bool path_prepend(struct path_walk *walk, struct dentry *dentry)
{
	const unsigned char *name = BPF_CORE_READ(dentry, d_name.name);
	__u32 length = BPF_CORE_READ(dentry, d_name.len);
	__u32 at = walk->at;

	if (length + 1 > at || length >= PATH_SIZE)
		return false;
	at -= length;
	/* The masks change nothing; they tell the verifier what the lines above ensure. */
	if (bpf_probe_read_kernel(&walk->text[at & (PATH_SIZE - 1)], length & (PATH_SIZE - 1),
				  name))
		return false;
	at -= 1;
	walk->text[at & (PATH_SIZE - 1)] = '/';
	walk->at = at;
	return true;
}

enum path_step {
	PATH_GOES_ON,
	PATH_DONE,
	PATH_NONE,
};

/* One step up: to the directory above, or from a mount's root to what it is mounted on. */
static __always_inline enum path_step path_up(struct path_walk *walk)
{
	struct dentry *dentry = walk->dentry;
	struct mount *mount = walk->mount;
	struct mount *below;
	struct dentry *up;

	if (dentry != BPF_CORE_READ(mount, mnt.mnt_root)) {
		up = BPF_CORE_READ(dentry, d_parent);
		if (up == dentry || !up || !path_prepend(walk, dentry))
			return PATH_NONE;
		walk->dentry = up;
		return PATH_GOES_ON;
	}
	below = BPF_CORE_READ(mount, mnt_parent);
	if (below != mount) {
		walk->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		walk->mount = below;
		return PATH_GOES_ON;
	}
	return BPF_CORE_READ(mount, mnt_ns) ? PATH_DONE : PATH_NONE;
}

/*
 * The path as a key of PATH_SIZE bytes, valid until this program ends; NULL if it has
 * none, is longer, or is deeper. Not for programs that sleep: the buffer is the CPU's.
 */
static __always_inline const char *path_resolve(const struct path *path)
{
	enum path_step step = PATH_GOES_ON;
	__u32 zero = 0;
	struct path_walk *walk = bpf_map_lookup_elem(&path_walks, &zero);

	if (!walk)
		return NULL;
	walk->at = PATH_SIZE - 1;
	walk->dentry = BPF_CORE_READ(path, dentry);
	walk->mount = mount_of(BPF_CORE_READ(path, mnt));
	for (int i = 0; i < PATH_STEPS && step == PATH_GOES_ON; i++)
		step = path_up(walk);
	if (step != PATH_DONE)
		return NULL;
	if (walk->at == PATH_SIZE - 1) {
		walk->at = PATH_SIZE - 2;
		walk->text[PATH_SIZE - 2] = '/';
	}
	return &walk->text[walk->at & (PATH_SIZE - 1)];
}

#endif /* HOOKPROOF_PATH_H */
