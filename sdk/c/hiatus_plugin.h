/* hiatus_plugin.h: extensions of Hiatus in C. sdk/abi/ABI.md describes each
 * function, its errors, and the JSON that it takes or gives.
 *
 *	#include "hiatus_plugin.h"
 *	HIATUS_INIT { return hiatus_subscribe(HIATUS_PRECHECKPOINT) < 0; }
 *	HIATUS_EVENT(kind) { hiatus_logs(HIATUS_INFO, "stopped"); return HIATUS_OK; }
 *
 * clang --target=wasm32 -O2 -nostdlib -Wl,--no-entry -o x.wasm x.c
 *
 * A function that is called becomes an import; one of a capability must be
 * granted by the user. Only the compiler's own headers are needed.
 */
#ifndef HIATUS_PLUGIN_H
#define HIATUS_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

/* kinds of events */
enum {
	HIATUS_PRESUSPEND = 1, /* threads still run */
	HIATUS_PRECHECKPOINT,  /* threads are stopped: save */
	HIATUS_RESUME,         /* the state is saved, or the checkpoint was given up */
	HIATUS_RESTART,        /* processes exist, without memory and descriptors */
	HIATUS_RUNNING,        /* after a restart: threads are about to run */
	HIATUS_LAUNCH,         /* a tree begins */
	HIATUS_EXIT,           /* a tree has ended */
	HIATUS_OUTCOME,        /* a checkpoint was committed or given up */
};

/* what init and event return */
enum { HIATUS_OK = 0, HIATUS_FAILED = 1, HIATUS_SKIP = 2 };

/* what functions return in place of a length */
enum {
	HIATUS_ENOTFOUND = -1,
	HIATUS_EINVALID = -2,
	HIATUS_ENOTALLOWED = -3,
	HIATUS_EFAILED = -4,
	HIATUS_ELIMIT = -5,
};

/* levels of hiatus_log */
enum { HIATUS_TRACE, HIATUS_DEBUG, HIATUS_INFO, HIATUS_WARN, HIATUS_ERROR };

#define HIATUS_INIT __attribute__((export_name("hiatus_init"))) int32_t hiatus_init(void)
#define HIATUS_EVENT(kind) __attribute__((export_name("hiatus_event"))) int32_t hiatus_event(uint32_t kind)

#define HIATUS_IMPORT(module, name) __attribute__((import_module(module), import_name(name)))

/* (buf, limit): at most limit bytes are written; the length of what there is
 * is returned, and nothing is written where that is more. */
HIATUS_IMPORT("hiatus/1", "event") int32_t hiatus_event_json(void *buf, uint32_t limit);
HIATUS_IMPORT("hiatus/1", "config") int32_t hiatus_config(void *buf, uint32_t limit);
HIATUS_IMPORT("hiatus/1", "state_read") int32_t hiatus_state_read(void *buf, uint32_t limit);
HIATUS_IMPORT("hiatus/1", "state_write") int32_t hiatus_state_write(const void *a, uint32_t a_len);
HIATUS_IMPORT("hiatus/1", "log") void hiatus_log(int32_t a, const void *b, uint32_t b_len);
HIATUS_IMPORT("hiatus/1", "fail") void hiatus_fail(const void *a, uint32_t a_len);
HIATUS_IMPORT("hiatus/1", "subscribe") int32_t hiatus_subscribe(uint32_t a);
HIATUS_IMPORT("hiatus/1", "describe") int32_t hiatus_describe(const void *a, uint32_t a_len);
HIATUS_IMPORT("hiatus/1", "features") int32_t hiatus_features(void *buf, uint32_t limit);
HIATUS_IMPORT("hiatus/1", "last_error") int32_t hiatus_last_error(void *buf, uint32_t limit);

/* capability coord */
HIATUS_IMPORT("hiatus/1/coord", "declare") int32_t hiatus_coord_declare(const void *a, uint32_t a_len);
HIATUS_IMPORT("hiatus/1/coord", "barrier") int32_t hiatus_coord_barrier(const void *a, uint32_t a_len);
HIATUS_IMPORT("hiatus/1/coord", "publish") int32_t hiatus_coord_publish(const void *a, uint32_t a_len, const void *b, uint32_t b_len);
HIATUS_IMPORT("hiatus/1/coord", "lookup") int32_t hiatus_coord_lookup(const void *a, uint32_t a_len, void *buf, uint32_t limit);

/* capability mem.read */
HIATUS_IMPORT("hiatus/1/mem.read", "maps") int32_t hiatus_mem_maps(int32_t a, void *buf, uint32_t limit);
HIATUS_IMPORT("hiatus/1/mem.read", "read") int32_t hiatus_mem_read(int32_t a, uint64_t b, void *buf, uint32_t limit);

/* capability mem.write */
HIATUS_IMPORT("hiatus/1/mem.write", "write") int32_t hiatus_mem_write(int32_t a, uint64_t b, const void *c, uint32_t c_len);

/* capability env */
HIATUS_IMPORT("hiatus/1/env", "process") int32_t hiatus_env_process(int32_t a, void *buf, uint32_t limit);
HIATUS_IMPORT("hiatus/1/env", "own") int32_t hiatus_env_own(void *buf, uint32_t limit);
HIATUS_IMPORT("hiatus/1/env", "change") int32_t hiatus_env_change(int32_t a, const void *b, uint32_t b_len);

/* capability files */
HIATUS_IMPORT("hiatus/1/files", "list") int32_t hiatus_files_list(void *buf, uint32_t limit);
HIATUS_IMPORT("hiatus/1/files", "mark") int32_t hiatus_files_mark(const void *a, uint32_t a_len);

/* capability path */
HIATUS_IMPORT("hiatus/1/path", "map") int32_t hiatus_path_map(const void *a, uint32_t a_len, const void *b, uint32_t b_len);

/* capability fd */
HIATUS_IMPORT("hiatus/1/fd", "own") int32_t hiatus_fd_own(const void *a, uint32_t a_len);
HIATUS_IMPORT("hiatus/1/fd", "saved") int32_t hiatus_fd_saved(int32_t a, int32_t b, void *buf, uint32_t limit);
HIATUS_IMPORT("hiatus/1/fd", "reopen") int32_t hiatus_fd_reopen(int32_t a, int32_t b, const void *c, uint32_t c_len);

/* capability exec */
HIATUS_IMPORT("hiatus/1/exec", "run") int32_t hiatus_exec_run(const void *a, uint32_t a_len);
HIATUS_IMPORT("hiatus/1/exec", "result") int32_t hiatus_exec_result(void *buf, uint32_t limit);

/* capability hold */
HIATUS_IMPORT("hiatus/1/hold", "keep") int32_t hiatus_hold_keep(int32_t a);

/* capability http */
HIATUS_IMPORT("hiatus/1/http", "request") int32_t hiatus_http_request(const void *a, uint32_t a_len);
HIATUS_IMPORT("hiatus/1/http", "response") int32_t hiatus_http_response(void *buf, uint32_t limit);

/* strings */

static inline uint32_t hiatus_strlen(const char *s)
{
	uint32_t n = 0;
	while (s[n])
		n++;
	return n;
}

static inline void hiatus_logs(int32_t level, const char *s) { hiatus_log(level, s, hiatus_strlen(s)); }

/* hiatus_failed gives the reason and returns what the function returns:
 * return hiatus_failed("no seat is free"); */
static inline int32_t hiatus_failed(const char *reason)
{
	hiatus_fail(reason, hiatus_strlen(reason));
	return HIATUS_FAILED;
}

#endif
