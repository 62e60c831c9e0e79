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
struct bpf_link;
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
int hp_set_knob(struct bpf_object *obj, const char *name, uint64_t value);

/* Links. */
struct bpf_link *bpf_program__attach(const struct bpf_program *prog);
struct bpf_link *bpf_program__attach_kprobe(const struct bpf_program *prog, bool retprobe, const char *func);
int bpf_link__fd(const struct bpf_link *link);
int bpf_link__destroy(struct bpf_link *link);
int bpf_raw_tracepoint_open(const char *name, int prog_fd);
int bpf_iter_create(int link_fd);

/* Programs and maps without an object. */
enum bpf_prog_type { BPF_PROG_TYPE_TRACING, ... };
enum bpf_attach_type { BPF_TRACE_FENTRY, BPF_TRACE_FEXIT, BPF_MODIFY_RETURN, BPF_LSM_MAC, ... };
int hp_return_zero_load(int attach_type, uint32_t btf_id, const char *name, char *log, uint32_t log_size);
int hp_hash_create(const char *name, uint32_t key_size, uint32_t value_size, uint32_t max_entries);

/* Elements. */
int bpf_map_update_elem(int fd, const void *key, const void *value, __u64 flags);
int bpf_map_lookup_elem(int fd, const void *key, void *value);
int bpf_map_delete_elem(int fd, const void *key);
int bpf_map_get_next_key(int fd, const void *key, void *next_key);

/* Ring buffer. */
struct ring_buffer;
extern "Python" int hp_sample(void *ctx, void *data, size_t size);
struct ring_buffer *hp_ring_new(int map_fd, void *ctx);
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
int hp_btf_enumerator(const struct btf *btf, const char *name, int64_t *value);
int hp_btf_funcs(const struct btf *btf, const char *prefix, uint32_t *ids, int max);

/* What is in the kernel. */
struct hp_prog_info { uint32_t id; uint32_t type; char name[16]; uint64_t run_cnt; uint64_t recursion_misses; };
struct hp_map_info { uint32_t id; uint32_t type; uint32_t max_entries; char name[16]; };
struct hp_link_info { uint32_t id; uint32_t type; uint32_t prog_id; uint32_t attach_type; uint32_t obj_id; uint32_t btf_id; };
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
enum bpf_map_type { BPF_MAP_TYPE_HASH, ... };
const char *libbpf_bpf_prog_type_str(enum bpf_prog_type t);
const char *libbpf_bpf_map_type_str(enum bpf_map_type t);
const char *hp_link_type(uint32_t type);
