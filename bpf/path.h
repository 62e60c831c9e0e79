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
 *   of a network file system, a pipe or socket, a layer as overlayfs opens it) has no
 *   path and matches none. A tree that open_tree() cloned has a path, from its own root.
 * - Renames during the walk are not locked out, as they are for d_path: a call that
 *   races with a rename of one of its own directories may match neither name.
 */
#ifndef HOOKPROOF_PATH_H
#define HOOKPROOF_PATH_H

#include "scratch.h"
#include <bpf/bpf_core_read.h>

/* Bytes of a key: the path with its final NUL and zeros, or as many of a longer one's beginning. */
#define PATH_SIZE 256

#define NAME_MAX 255

/* Bytes in which a path is collected; of a longer one the end is dropped. */
#define PATH_ROOM 1024

/* Where the beginning of a longer one is moved to: what ends all paths stays as it is. */
#define PATH_CUT (PATH_ROOM - 1 - PATH_SIZE)

/*
 * Names and mounts on the way up: so many times so many, which is more than a path of PATH_MAX
 * bytes can have. The verifier looks at the inner loop once (path_climb).
 */
#define PATH_CLIMB  16
#define PATH_CLIMBS 136

/*
 * The path is written from behind and ends at text[PATH_ROOM - 1], which is NUL, as is all that
 * follows. So the PATH_SIZE bytes at text[at] are a key without being moved, and with the length
 * before them the key of an LPM trie. Where the room ends, the PATH_SIZE bytes that were written
 * last are moved to before that NUL: more than these of the final path's beginning nobody asks for.
 *
 * All state is kept here and read anew in each round: the verifier then finds that all ways
 * through a round end alike, and does not multiply them.
 */
struct path_walk {
	struct dentry *dentry;
	struct mount *mount;
	__u32 at;
	__u32 before_text;
	char text[PATH_ROOM + PATH_SIZE];
};

SCRATCH(path_walks, path_walk)

static __always_inline struct mount *mount_of(struct vfsmount *mnt)
{
	return (void *)mnt - bpf_core_field_offset(struct mount, mnt);
}

/* Puts one name and a slash before what is there. Returns false if the name cannot be read. */
static __always_inline bool path_prepend(struct path_walk *walk, struct dentry *dentry)
{
	const unsigned char *name = BPF_CORE_READ(dentry, d_name.name);
	__u32 length = BPF_CORE_READ(dentry, d_name.len);
	__u32 at = walk->at;

	if (length > NAME_MAX)
		return false;
	if (length + 1 > at) {
		bpf_probe_read_kernel(&walk->text[PATH_CUT], PATH_SIZE,
				      &walk->text[at & (PATH_ROOM - 1)]);
		at = PATH_CUT;
	}
	at -= length;
	/* The masks change nothing; they tell the verifier what the lines above ensure. */
	if (bpf_probe_read_kernel(&walk->text[at & (PATH_ROOM - 1)], length & NAME_MAX, name))
		return false;
	at -= 1;
	walk->text[at & (PATH_ROOM - 1)] = '/';
	walk->at = at;
	return true;
}

/* The kernel has an error in the place of the namespace of mounts of its own (is_mounted()). */
static __always_inline bool path_in_namespace(const struct mount *mount)
{
	unsigned long namespace = (unsigned long)BPF_CORE_READ(mount, mnt_ns);

	return namespace && namespace < (unsigned long)-MAX_ERRNO;
}

enum path_step {
	PATH_GOES_ON,
	PATH_DONE,
	PATH_NONE,
};

/* One step up: to the directory above, or from a mount's root to what it is mounted on. */
static __always_inline enum path_step path_up(struct path_walk *walk)
{
	struct dentry *up, *dentry = walk->dentry;
	struct mount *mount = walk->mount, *next = mount;

	if (dentry != BPF_CORE_READ(mount, mnt.mnt_root)) {
		up = BPF_CORE_READ(dentry, d_parent);
		if (up == dentry || !up || !path_prepend(walk, dentry))
			return PATH_NONE;
	} else {
		next = BPF_CORE_READ(mount, mnt_parent);
		if (next == mount)
			return path_in_namespace(mount) ? PATH_DONE : PATH_NONE;
		up = BPF_CORE_READ(mount, mnt_mountpoint);
	}
	/*
	 * In one place, so that there is one way back to the next round: with two, clang lets the
	 * end of the loop fall into its beginning, a jump that 5.10's verifier does not allow.
	 */
	walk->dentry = up;
	walk->mount = next;
	return PATH_GOES_ON;
}

/*
 * The next PATH_CLIMB steps; an enum path_step. Global, as path_walk is: the verifier looks at such
 * a function by itself and once, and not again for every way that leads to a call of it.
 */
__noinline int path_climb(void)
{
	enum path_step step = PATH_GOES_ON;
	struct path_walk *walk = my_path_walks();

	if (!walk)
		return PATH_NONE;
	for (int i = 0; i < PATH_CLIMB; i++) {
		step = path_up(walk);
		if (step != PATH_GOES_ON)
			break;
	}
	return step;
}

/*
 * Walks a struct path, whose address it is given; 1 if it has a path that can be matched. Its
 * text is where path_key finds it: the empty one, if it has none.
 */
__noinline int path_walk(unsigned long address)
{
	const struct path *path = (void *)address;
	int step = PATH_GOES_ON;
	struct path_walk *walk = my_path_walks();

	if (!walk)
		return 0;
	walk->at = PATH_ROOM - 1;
	walk->dentry = BPF_CORE_READ(path, dentry);
	walk->mount = mount_of(BPF_CORE_READ(path, mnt));
	for (int i = 0; i < PATH_CLIMBS; i++) {
		step = path_climb();
		if (step != PATH_GOES_ON)
			break;
	}
	if (step != PATH_DONE) {
		walk->at = PATH_ROOM - 1;
		return 0;
	}
	if (walk->at == PATH_ROOM - 1) {
		walk->at = PATH_ROOM - 2;
		walk->text[PATH_ROOM - 2] = '/';
	}
	return 1;
}

/*
 * Takes a string of the caller's as the path, as it is; 1 if it could be read. It cannot where its
 * page is not in memory: a program that does not sleep cannot fetch it.
 */
__noinline int path_from_user(unsigned long address)
{
	struct path_walk *walk = my_path_walks();

	if (!walk)
		return 0;
	walk->at = 0;
	__builtin_memset(walk->text, 0, PATH_SIZE);
	/* One byte more than a key has: of a string that does not fit, no byte of the key is NUL.
	 */
	if (bpf_probe_read_user_str(walk->text, PATH_SIZE + 1, (void *)address) > 0)
		return 1;
	walk->at = PATH_ROOM - 1;
	return 0;
}

/* There is no path: its text is the empty one. */
static __always_inline void path_none(void)
{
	struct path_walk *walk = my_path_walks();

	if (walk)
		walk->at = PATH_ROOM - 1;
}

/*
 * The path that was taken last as a key of PATH_SIZE bytes, valid until the next one or the
 * program's end. Not for programs that sleep: what they call could take another.
 */
static __always_inline const char *path_key(void)
{
	struct path_walk *walk = my_path_walks();

	return walk ? &walk->text[walk->at & (PATH_ROOM - 1)] : NULL;
}

struct path_prefix {
	__u32 bits;
	char text[PATH_SIZE];
};

/* The same as a key of an LPM trie of struct path_prefix. */
static __always_inline const void *path_as_prefix(void)
{
	__u32 bits = 8 * PATH_SIZE;
	struct path_walk *walk = my_path_walks();
	char *text;

	if (!walk)
		return NULL;
	text = &walk->text[walk->at & (PATH_ROOM - 1)];
	/* Before the text is nothing that is still needed; before text[0], before_text. */
	__builtin_memcpy(text - sizeof(bits), &bits, sizeof(bits));
	return text - sizeof(bits);
}

#endif /* HOOKPROOF_PATH_H */
