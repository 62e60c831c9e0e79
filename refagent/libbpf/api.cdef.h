/* SPDX-License-Identifier: Apache-2.0 */
/* What Python sees of libbpf, in cffi's language: "..." is filled in from the headers. */

typedef uint32_t __u32;
typedef uint64_t __u64;

/* Errors and messages. */
int libbpf_strerror(int err, char *buf, size_t size);
extern "Python" void hp_log(int level, const char *text);
void hp_capture_log(void);
uint32_t hp_kernel_version(void);

/* Objects, before and after load. */
struct bpf_object;
struct bpf_program;
struct bpf_map;
enum bpf_map_type { BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_PERCPU_ARRAY, BPF_MAP_TYPE_ARRAY_OF_MAPS, BPF_MAP_TYPE_LPM_TRIE, BPF_MAP_TYPE_TASK_STORAGE, ... };
struct bpf_object *hp_object_open(const char *path);
int bpf_object__load(struct bpf_object *obj);
void bpf_object__close(struct bpf_object *obj);
struct bpf_program *bpf_object__find_program_by_name(const struct bpf_object *obj, const char *name);
struct bpf_map *bpf_object__find_map_by_name(const struct bpf_object *obj, const char *name);
struct bpf_program *bpf_object__next_program(const struct bpf_object *obj, struct bpf_program *prog);
struct bpf_map *bpf_object__next_map(const struct bpf_object *obj, const struct bpf_map *map);
int bpf_program__set_autoload(struct bpf_program *prog, bool autoload);
int bpf_program__set_attach_target(struct bpf_program *prog, int prog_fd, const char *name);
int bpf_program__fd(const struct bpf_program *prog);
int bpf_map__fd(const struct bpf_map *map);
int bpf_map__reuse_fd(struct bpf_map *map, int fd);
__u32 bpf_map__key_size(const struct bpf_map *map);
__u32 bpf_map__value_size(const struct bpf_map *map);
__u32 bpf_map__max_entries(const struct bpf_map *map);
__u32 bpf_map__map_flags(const struct bpf_map *map);
__u32 bpf_map__btf_key_type_id(const struct bpf_map *map);
__u32 bpf_map__btf_value_type_id(const struct bpf_map *map);
enum bpf_map_type bpf_map__type(const struct bpf_map *map);
const char *hp_knob(const struct bpf_object *obj, int index, uint32_t *offset, uint32_t *size);

/* A program as libbpf is about to load it, see template.py. */
enum bpf_attach_type { BPF_TRACE_FENTRY, BPF_TRACE_FEXIT, BPF_MODIFY_RETURN, BPF_LSM_MAC, BPF_TRACE_ITER, ... };
enum bpf_prog_type { BPF_PROG_TYPE_TRACING, BPF_PROG_TYPE_KPROBE, ... };
struct bpf_insn;
struct bpf_prog_load_opts {
	size_t sz;
	enum bpf_attach_type expected_attach_type;
	__u32 prog_flags;
	__u32 prog_btf_fd;
	__u32 attach_btf_id;
	const void *func_info;
	__u32 func_info_cnt;
	__u32 func_info_rec_size;
	const void *line_info;
	__u32 line_info_cnt;
	__u32 line_info_rec_size;
	__u32 log_level;
	__u32 log_size;
	char *log_buf;
	...;
};
extern "Python" int hp_template(struct bpf_program *prog, struct bpf_prog_load_opts *opts, long cookie);
int hp_templates(void);
const struct bpf_insn *bpf_program__insns(const struct bpf_program *prog);
size_t bpf_program__insn_cnt(const struct bpf_program *prog);
enum bpf_prog_type bpf_program__type(const struct bpf_program *prog);
const char *bpf_program__section_name(const struct bpf_program *prog);
const char *bpf_program__name(const struct bpf_program *prog);
const char *bpf_map__name(const struct bpf_map *map);
void *bpf_map__initial_value(const struct bpf_map *map, size_t *size);
int bpf_prog_load(enum bpf_prog_type type, const char *name, const char *license, const struct bpf_insn *insns, size_t count, struct bpf_prog_load_opts *opts);

/* Links. */
struct bpf_link_create_opts;
int bpf_raw_tracepoint_open(const char *name, int prog_fd);
int bpf_link_create(int prog_fd, int target_fd, enum bpf_attach_type type, const struct bpf_link_create_opts *opts);
int hp_kprobe_open(const char *function);
int hp_kprobe_attach(int event_fd, int prog_fd);
int bpf_iter_create(int link_fd);

/* Programs and maps without an object. */
int hp_return_zero_load(int attach_type, uint32_t btf_id, const char *name, char *log, uint32_t log_size);
#define BPF_F_RDONLY_PROG ...
#define BPF_F_NO_PREALLOC ...
#define BPF_F_SLEEPABLE ...
int hp_map_create(enum bpf_map_type type, const char *name, uint32_t key_size, uint32_t value_size, uint32_t max_entries, uint32_t flags, int inner_fd, int btf_fd, uint32_t key_type, uint32_t value_type);
int bpf_map_freeze(int fd);

/* Pins. */
int bpf_obj_pin(int fd, const char *pathname);
int bpf_obj_get(const char *pathname);

/* Elements. */
int bpf_map_update_elem(int fd, const void *key, const void *value, __u64 flags);
int bpf_map_lookup_elem(int fd, const void *key, void *value);
int bpf_map_delete_elem(int fd, const void *key);
struct bpf_map_batch_opts;
int bpf_map_lookup_batch(int fd, void *in_batch, void *out_batch, void *keys, void *values, __u32 *count, const struct bpf_map_batch_opts *opts);
int bpf_map_update_batch(int fd, const void *keys, const void *values, __u32 *count, const struct bpf_map_batch_opts *opts);

/* Ring buffer. */
struct ring_buffer;
extern "Python" int hp_sample(void *ctx, void *data, size_t size);
struct ring_buffer *hp_ring_new(int map_fd, void *ctx);
int ring_buffer__consume(struct ring_buffer *rb);
int ring_buffer__poll(struct ring_buffer *rb, int timeout_ms);
void ring_buffer__free(struct ring_buffer *rb);

/* BTF. */
struct btf;
struct btf *btf__load_vmlinux_btf(void);
struct btf *bpf_object__btf(const struct bpf_object *obj);
int32_t btf__find_by_name_kind(const struct btf *btf, const char *name, __u32 kind);
#define BTF_KIND_FUNC ...
const char *hp_btf_name(const struct btf *btf, uint32_t id);
int hp_btf_func(const struct btf *btf, uint32_t id, char *ret, uint32_t size);
int hp_btf_param(const struct btf *btf, uint32_t id, int index, char *type, uint32_t size);
int hp_btf_param_size(const struct btf *btf, uint32_t id, int index);
int hp_btf_enumerator(const struct btf *btf, const char *name, int64_t *value);
int hp_btf_funcs(const struct btf *btf, const char *prefix, uint32_t *ids, int max);

/* What is in the kernel. */
struct hp_prog_info { uint32_t id; uint32_t type; char name[16]; uint64_t run_cnt; uint64_t run_time_ns; uint64_t recursion_misses; uint32_t map_count; uint32_t maps[32]; };
struct hp_map_info { uint32_t id; uint32_t type; uint32_t max_entries; uint32_t key_size; uint32_t value_size; uint32_t flags; char name[16]; };
struct hp_link_info { uint32_t id; uint32_t type; uint32_t prog_id; uint32_t attach_type; uint32_t obj_id; uint32_t btf_id; char function[128]; };
int bpf_prog_get_next_id(__u32 start_id, __u32 *next_id);
int bpf_map_get_next_id(__u32 start_id, __u32 *next_id);
int bpf_link_get_next_id(__u32 start_id, __u32 *next_id);
int bpf_prog_get_fd_by_id(__u32 id);
int bpf_map_get_fd_by_id(__u32 id);
int bpf_link_get_fd_by_id(__u32 id);
int hp_prog_info(int fd, struct hp_prog_info *out);
int hp_map_info(int fd, struct hp_map_info *out);
int hp_link_info(int fd, struct hp_link_info *out);
int hp_task_kprobe(int pid, int fd, char *function, uint32_t size, uint32_t *prog_id);
const char *libbpf_bpf_prog_type_str(enum bpf_prog_type t);
const char *libbpf_bpf_map_type_str(enum bpf_map_type t);
const char *hp_link_type(uint32_t type);
