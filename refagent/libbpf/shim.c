/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few lines of C between cffi and libbpf: what takes a va_list, an options
 * structure, a bit field, or a loop too slow for Python under emulation.
 * Functions return 0 or a count, or a negative errno, unless they say otherwise.
 */
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/perf_event.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

/* Written in Python; cffi defines them below. */
static void hp_log(int level, const char *text);
static int hp_sample(void *ctx, void *data, size_t size);
static int hp_template(struct bpf_program *prog, struct bpf_prog_load_opts *opts, long cookie);

static int print_line(enum libbpf_print_level level, const char *format, va_list args)
{
	va_list again;
	int saved = errno;
	int length;
	char *text;

	va_copy(again, args);
	length = vsnprintf(NULL, 0, format, again);
	va_end(again);
	text = length < 0 ? NULL : malloc(length + 1);
	if (text) {
		vsnprintf(text, length + 1, format, args);
		hp_log(level, text);
		free(text);
	}
	errno = saved;
	return length;
}

static void hp_capture_log(void)
{
	libbpf_set_print(print_line);
}

/*
 * LINUX_VERSION_CODE as the running kernel was built with: the note "Linux" in the
 * vDSO. `uname -r` of a distribution hides the stable release (5.10.0-37). 0 if unknown.
 */
static uint32_t hp_kernel_version(void)
{
	const char *base = (const char *)getauxval(AT_SYSINFO_EHDR);
	const ElfW(Ehdr) *header = (const void *)base;

	for (int i = 0; base && i < header->e_phnum; i++) {
		const ElfW(Phdr) *segment =
			(const void *)(base + header->e_phoff + i * header->e_phentsize);
		const char *at = base + segment->p_offset, *end = at + segment->p_memsz;

		while (segment->p_type == PT_NOTE && at + sizeof(ElfW(Nhdr)) <= end) {
			const ElfW(Nhdr) *note = (const void *)at;
			const char *name = at + sizeof(*note);
			const char *desc = name + ((note->n_namesz + 3) & ~3u);
			uint32_t code;

			if (note->n_type == 0 && note->n_namesz == 6 && !memcmp(name, "Linux", 6)) {
				memcpy(&code, desc, sizeof(code));
				return code;
			}
			at = desc + ((note->n_descsz + 3) & ~3u);
		}
	}
	return 0;
}

static struct bpf_object *hp_object_open(const char *path)
{
	return bpf_object__open_file(path, NULL);
}

/* The index-th `const volatile` global: its name, and its place in the initial value of .rodata.
 * NULL after the last one. */
static const char *hp_knob(const struct bpf_object *obj, int index, uint32_t *offset,
			   uint32_t *size)
{
	const struct btf *btf = bpf_object__btf(obj);
	int id = btf ? btf__find_by_name_kind(btf, ".rodata", BTF_KIND_DATASEC) : -ENOENT;
	const struct btf_type *section = id < 0 ? NULL : btf__type_by_id(btf, id);
	const struct btf_var_secinfo *place;

	if (!section || index >= btf_vlen(section))
		return NULL;
	place = btf_var_secinfos(section) + index;
	*offset = place->offset;
	*size = place->size;
	return btf__name_by_offset(btf, btf__type_by_id(btf, place->type)->name_off);
}

/* Loads `return 0;` for one kernel function. Returns the program's fd. */
static int hp_return_zero_load(int attach_type, uint32_t btf_id, const char *name, char *log,
			       uint32_t log_size)
{
	const struct bpf_insn body[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 0},
		{.code = BPF_JMP | BPF_EXIT},
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = attach_type,
		    .attach_btf_id = btf_id, .log_buf = log, .log_size = log_size,
		    .log_level = log ? 1 : 0);

	return bpf_prog_load(BPF_PROG_TYPE_TRACING, name, "GPL", body, 2, &opts);
}

/* The types of key and value are their ids in a BTF; some kinds of map have to have them. */
static int hp_map_create(enum bpf_map_type type, const char *name, uint32_t key_size,
			 uint32_t value_size, uint32_t max_entries, uint32_t flags, int inner_fd,
			 int btf_fd, uint32_t key_type, uint32_t value_type)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = flags,
		    .inner_map_fd = inner_fd < 0 ? 0 : inner_fd, .btf_fd = btf_fd < 0 ? 0 : btf_fd,
		    .btf_key_type_id = key_type, .btf_value_type_id = value_type);

	return bpf_map_create(type, name, key_size, value_size, max_entries, &opts);
}

/*
 * Programs in sections "shared/KIND" are templates: hp_template copies them a moment before
 * libbpf would load them, and ends the load.
 */
static int hp_templates(void)
{
	static const struct {
		const char *section;
		enum bpf_prog_type type;
		enum bpf_attach_type attach;
	} kinds[] = {
		{"shared/fmod_ret", BPF_PROG_TYPE_TRACING, BPF_MODIFY_RETURN},
		{"shared/fentry", BPF_PROG_TYPE_TRACING, BPF_TRACE_FENTRY},
		{"shared/kprobe", BPF_PROG_TYPE_KPROBE, 0},
		{"shared/iter", BPF_PROG_TYPE_TRACING, BPF_TRACE_ITER},
		{"shared/lsm", BPF_PROG_TYPE_LSM, BPF_LSM_MAC},
		{"shared/lsm.s", BPF_PROG_TYPE_LSM, BPF_LSM_MAC},
	};
	LIBBPF_OPTS(libbpf_prog_handler_opts, opts, .prog_prepare_load_fn = hp_template);

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		int err = libbpf_register_prog_handler(kinds[i].section, kinds[i].type,
						       kinds[i].attach, &opts);

		if (err < 0)
			return err;
	}
	return 0;
}

/* A perf event at the entry of a kernel function, of all tasks. Returns its descriptor. */
static int hp_kprobe_open(const char *function)
{
	struct perf_event_attr attr = {.size = sizeof(attr), .kprobe_func = (uintptr_t)function};
	FILE *file = fopen("/sys/bus/event_source/devices/kprobe/type", "re");
	unsigned int type;
	int fd, found;

	if (!file)
		return -errno;
	found = fscanf(file, "%u", &type);
	fclose(file);
	if (found != 1)
		return -ENOENT;
	attr.type = type;
	fd = syscall(SYS_perf_event_open, &attr, -1, 0, -1, PERF_FLAG_FD_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Runs a program at a perf event. Returns a link's descriptor, or the event's before 5.15. */
static int hp_kprobe_attach(int event_fd, int prog_fd)
{
	int fd = bpf_link_create(prog_fd, event_fd, BPF_PERF_EVENT, NULL);

	if (fd == -EINVAL && !ioctl(event_fd, PERF_EVENT_IOC_SET_BPF, prog_fd))
		fd = event_fd;
	if (fd < 0)
		return fd;
	if (!ioctl(event_fd, PERF_EVENT_IOC_ENABLE, 0))
		return fd;
	if (fd != event_fd)
		close(fd);
	return -errno;
}

static struct ring_buffer *hp_ring_new(int map_fd, void *ctx)
{
	return ring_buffer__new(map_fd, hp_sample, ctx, NULL);
}

static const char *hp_btf_name(const struct btf *btf, uint32_t id)
{
	const struct btf_type *type = btf__type_by_id(btf, id);

	return type ? btf__name_by_offset(btf, type->name_off) : NULL;
}

/* Writes a type as C has it, without typedefs resolved: "const struct path *". */
static void type_text(const struct btf *btf, uint32_t id, char *out, uint32_t size)
{
	const struct btf_type *type = btf__type_by_id(btf, id);
	char stars[8] = "", qualifier[8] = "";
	const char *tag = "";

	while (type && (btf_is_ptr(type) || btf_is_mod(type))) {
		if (btf_is_ptr(type) && strlen(stars) < sizeof(stars) - 1)
			strcat(stars, "*");
		if (btf_is_const(type) && !qualifier[0])
			strcpy(qualifier, "const ");
		type = btf__type_by_id(btf, type->type);
	}
	if (type && btf_is_struct(type))
		tag = "struct ";
	if (type && btf_is_union(type))
		tag = "union ";
	if (type && btf_is_any_enum(type))
		tag = "enum ";
	snprintf(out, size, "%s%s%s%s%s", qualifier, tag,
		 !type || btf_is_void(type) ? "void" : btf__name_by_offset(btf, type->name_off),
		 stars[0] ? " " : "", stars);
}

/* The prototype of a function: its return type as text. Returns the number of parameters. */
static int hp_btf_func(const struct btf *btf, uint32_t id, char *ret, uint32_t size)
{
	const struct btf_type *func = btf__type_by_id(btf, id);
	const struct btf_type *proto =
		func && btf_is_func(func) ? btf__type_by_id(btf, func->type) : NULL;

	if (!proto || !btf_is_func_proto(proto))
		return -EINVAL;
	type_text(btf, proto->type, ret, size);
	return btf_vlen(proto);
}

static int hp_btf_param(const struct btf *btf, uint32_t id, int index, char *type, uint32_t size)
{
	const struct btf_type *func = btf__type_by_id(btf, id);
	const struct btf_type *proto =
		func && btf_is_func(func) ? btf__type_by_id(btf, func->type) : NULL;

	if (!proto || index < 0 || index >= btf_vlen(proto))
		return -EINVAL;
	type_text(btf, btf_params(proto)[index].type, type, size);
	return 0;
}

/* The size of a parameter's type in bytes. */
static int hp_btf_param_size(const struct btf *btf, uint32_t id, int index)
{
	const struct btf_type *func = btf__type_by_id(btf, id);
	const struct btf_type *proto =
		func && btf_is_func(func) ? btf__type_by_id(btf, func->type) : NULL;

	if (!proto || index < 0 || index >= btf_vlen(proto))
		return -EINVAL;
	return btf__resolve_size(btf, btf_params(proto)[index].type);
}

/* The value of an enumerator, wherever it is declared. */
static int hp_btf_enumerator(const struct btf *btf, const char *name, int64_t *value)
{
	for (uint32_t id = 1; id < btf__type_cnt(btf); id++) {
		const struct btf_type *type = btf__type_by_id(btf, id);

		for (int i = 0; btf_is_enum(type) && i < btf_vlen(type); i++) {
			if (strcmp(btf__name_by_offset(btf, btf_enum(type)[i].name_off), name) != 0)
				continue;
			*value = btf_enum(type)[i].val;
			return 0;
		}
	}
	return -ENOENT;
}

/* The ids of the functions whose names begin so. Returns how many, at most max. */
static int hp_btf_funcs(const struct btf *btf, const char *prefix, uint32_t *ids, int max)
{
	size_t length = strlen(prefix);
	int found = 0;

	for (uint32_t id = 1; id < btf__type_cnt(btf) && found < max; id++) {
		const struct btf_type *type = btf__type_by_id(btf, id);

		if (btf_is_func(type) &&
		    strncmp(btf__name_by_offset(btf, type->name_off), prefix, length) == 0)
			ids[found++] = id;
	}
	return found;
}

struct hp_prog_info {
	uint32_t id;
	uint32_t type;
	char name[16];
	uint64_t run_cnt;
	uint64_t run_time_ns;
	uint64_t recursion_misses;
	uint32_t map_count; /* of all its maps; so many as there is room for stand below */
	uint32_t maps[32];
};
struct hp_map_info {
	uint32_t id;
	uint32_t type;
	uint32_t max_entries;
	uint32_t key_size;
	uint32_t value_size;
	uint32_t flags;
	char name[16];
};
struct hp_link_info {
	uint32_t id;
	uint32_t type;
	uint32_t prog_id;
	uint32_t attach_type;
	uint32_t obj_id;
	uint32_t btf_id;
	char function[128];
};

static int hp_prog_info(int fd, struct hp_prog_info *out)
{
	struct bpf_prog_info info = {
		.nr_map_ids = sizeof(out->maps) / sizeof(out->maps[0]),
		.map_ids = (uintptr_t)out->maps,
	};
	__u32 size = sizeof(info);
	int err = bpf_obj_get_info_by_fd(fd, &info, &size);

	if (err)
		return err;
	out->id = info.id;
	out->type = info.type;
	memcpy(out->name, info.name, sizeof(out->name));
	out->run_cnt = info.run_cnt;
	out->run_time_ns = info.run_time_ns;
	out->recursion_misses = info.recursion_misses;
	out->map_count = info.nr_map_ids;
	return 0;
}

static int hp_map_info(int fd, struct hp_map_info *out)
{
	struct bpf_map_info info = {};
	__u32 size = sizeof(info);
	int err = bpf_obj_get_info_by_fd(fd, &info, &size);

	if (err)
		return err;
	out->id = info.id;
	out->type = info.type;
	out->max_entries = info.max_entries;
	out->key_size = info.key_size;
	out->value_size = info.value_size;
	out->flags = info.map_flags;
	memcpy(out->name, info.name, sizeof(out->name));
	return 0;
}

/*
 * struct bpf_link_info of a perf event's link as 6.6 and later fill it (1b715e1b0ec5); the headers
 * of older systems end before.
 */
struct perf_link_info {
	__u32 type;
	__u32 id;
	__u32 prog_id;
	__u32 : 32;
	__u32 kind; /* enum bpf_perf_event_type */
	__u32 : 32;
	__u64 name;
	__u32 name_size;
	__u32 offset;
	__u64 address;
	__u64 missed;
	__u64 cookie;
};

#define PERF_LINK_KPROBE    3
#define PERF_LINK_KRETPROBE 4

/* The kernel function that a perf event's link probes; empty if it probes none, or before 6.6. */
static void perf_link_function(int fd, char *function, uint32_t room)
{
	struct perf_link_info info = {.name = (uintptr_t)function, .name_size = room};
	__u32 size = sizeof(info);

	if (bpf_obj_get_info_by_fd(fd, (void *)&info, &size) ||
	    (info.kind != PERF_LINK_KPROBE && info.kind != PERF_LINK_KRETPROBE))
		function[0] = 0;
}

/*
 * attach_type, obj_id and btf_id are those of a tracing link and 0 for others; 5.10 leaves the last
 * two 0. function is that of a perf event's link, if the kernel tells.
 */
static int hp_link_info(int fd, struct hp_link_info *out)
{
	struct bpf_link_info info = {};
	__u32 size = sizeof(info);
	int err = bpf_obj_get_info_by_fd(fd, &info, &size);

	if (err)
		return err;
	memset(out, 0, sizeof(*out));
	out->id = info.id;
	out->type = info.type;
	out->prog_id = info.prog_id;
	if (info.type == BPF_LINK_TYPE_TRACING) {
		out->attach_type = info.tracing.attach_type;
		out->obj_id = info.tracing.target_obj_id;
		out->btf_id = info.tracing.target_btf_id;
	}
	if (info.type == BPF_LINK_TYPE_PERF_EVENT)
		perf_link_function(fd, out->function, sizeof(out->function));
	return 0;
}

/* The kernel function that a task's perf event probes, if a BPF program hangs on it. Returns 1 if
 * so. */
static int hp_task_kprobe(int pid, int fd, char *function, uint32_t size, uint32_t *prog_id)
{
	__u32 length = size, kind = 0;
	__u64 offset = 0, address = 0;
	int err =
		bpf_task_fd_query(pid, fd, 0, function, &length, prog_id, &kind, &offset, &address);

	if (err)
		return err;
	return kind == BPF_FD_TYPE_KPROBE || kind == BPF_FD_TYPE_KRETPROBE;
}

static const char *hp_link_type(uint32_t type)
{
	return libbpf_bpf_link_type_str(type);
}
