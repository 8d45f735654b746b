/* System calls that change files, interposed with LD_PRELOAD: recorded, failed, or died at.
 *
 * Only files beneath one watched directory are looked at. An event is one call on one of them:
 *
 *   open write fsync rename unlink link mkdir rmdir truncate
 *
 * and its place is the path below the watched directory with every run of eight or more hex digits
 * replaced by '*', so that "HEAD.1f2e3d4c.tmp" is "HEAD.*.tmp"; the directory itself is ".".
 *
 * A rule (shim_arm) counts the events that match it and acts on the n-th: it kills the process
 * before or after the call, makes it fail with an errno (once, or from then on), or makes a write
 * short. A record (shim_record) is every event that succeeded, in order, with its data, from which
 * power.py rebuilds what a disk may hold. See shim.py for the format.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN, WRITE, FSYNC, RENAME, UNLINK, LINK, MKDIR, RMDIR, TRUNCATE, MARK, FSYNC_FAILED };
enum { NOTHING, KILL_BEFORE, KILL_AFTER, FAIL, SHORT };
enum { GO, REFUSE, CUT };
#define MAX_FD 65536

static char watched[PATH_MAX];
static size_t watched_len;
static int log_fd = -1;
static uint32_t handles[MAX_FD];
static char *paths[MAX_FD];
static uint32_t last_handle;
static pthread_mutex_t mutex = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

static struct {
    int action, error, sticky, fired;
    unsigned events;
    long nth, count;
    char place[256];
} rule;
static long retried_fsyncs;
#define MAX_FAILED 64
static struct { dev_t device; ino_t inode; } failed_fsync[MAX_FAILED]; /* and not written since */
static int n_failed;

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static void absolute(int dirfd, const char *path, char *out) {
    char base[PATH_MAX] = "";
    if (path[0] != '/') {
        if (dirfd == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) base[0] = 0;
        } else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", dirfd);
            ssize_t n = readlink(link, base, sizeof base - 1);
            base[n > 0 ? n : 0] = 0;
        }
    }
    if (base[0] && path[0]) snprintf(out, PATH_MAX, "%.2000s/%.2000s", base, path);
    else snprintf(out, PATH_MAX, "%s", base[0] ? base : path);
}

static int is_watched(const char *path) {
    return watched_len && !strncmp(path, watched, watched_len) &&
           (path[watched_len] == '/' || path[watched_len] == 0);
}

static void place_of(const char *path, char *out, size_t size) {
    const char *p = path + watched_len;
    size_t n = 0;
    while (*p == '/') p++;
    if (!*p) { snprintf(out, size, "."); return; }
    while (*p && n + 2 < size) {
        size_t run = 0;
        while (isxdigit((unsigned char)p[run])) run++;
        if (run >= 8) { out[n++] = '*'; p += run; }
        else if (run) { while (run-- && n + 2 < size) out[n++] = *p++; }
        else out[n++] = *p++;
    }
    out[n] = 0;
}

static void put(int event, uint64_t handle, int64_t offset, const char *path, const char *path2,
                const void *data, uint32_t size, uint32_t flags) {
    if (log_fd < 0) return;
    struct __attribute__((packed)) {
        uint8_t event; uint32_t flags; uint64_t handle; int64_t offset;
        uint16_t path_len, path2_len; uint32_t size;
    } head = {(uint8_t)event, flags, handle, offset, (uint16_t)(path ? strlen(path) : 0),
              (uint16_t)(path2 ? strlen(path2) : 0), size};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)path, head.path_len},
                            {(void *)path2, head.path2_len}, {(void *)data, size}};
    syscall(SYS_writev, log_fd, parts, 4);
}

static void die(void) { syscall(SYS_kill, getpid(), SIGKILL); for (;;) pause(); }

/* Called with the mutex held, before an event; says what to do with it. */
static int before(int event, const char *path) {
    if (rule.action == NOTHING || !(rule.events >> event & 1)) return GO;
    if (rule.place[0]) {
        char place[256];
        place_of(path, place, sizeof place);
        if (strcmp(place, rule.place)) return GO;
    }
    rule.count++;
    if (rule.count != rule.nth && !(rule.sticky && rule.count > rule.nth)) return GO;
    rule.fired++;
    if (rule.action == KILL_BEFORE) die();
    if (rule.action == KILL_AFTER) return GO;
    if (rule.action == SHORT && event == WRITE && rule.fired == 1) return CUT;
    errno = rule.error;
    return REFUSE;
}

static void after(int fired_before) {
    if (rule.action == KILL_AFTER && rule.fired > fired_before) die();
}

#define LOCK int fired = (pthread_mutex_lock(&mutex), rule.fired); (void)fired
#define UNLOCK do { int saved = errno; after(fired); pthread_mutex_unlock(&mutex); errno = saved; } while (0)

static void track(int fd, const char *path, int created, int truncated, int writing) {
    if (fd < 0 || fd >= MAX_FD) return;
    free(paths[fd]);
    paths[fd] = strdup(path);
    handles[fd] = ++last_handle;
    put(OPEN, (uint64_t)getpid() << 32 | handles[fd], 0, path, 0, 0, 0,
        created | truncated << 1 | writing << 2);
}

static void forget(int fd) {
    if (fd < 0 || fd >= MAX_FD || !handles[fd]) return;
    handles[fd] = 0;
    free(paths[fd]);
    paths[fd] = 0;
}

static int tracked(int fd) { return fd >= 0 && fd < MAX_FD && handles[fd]; }
static uint64_t handle_of(int fd) { return (uint64_t)getpid() << 32 | handles[fd]; }

static int open_any(int dirfd, const char *path, int flags, mode_t mode) {
    static int (*call)(int, const char *, int, ...);
    if (!call) call = REAL(openat);
    char full[PATH_MAX];
    if (watched_len) absolute(dirfd, path, full);
    if (!watched_len || !is_watched(full)) return call(dirfd, path, flags, mode);
    LOCK;
    struct stat seen;
    int there = fstatat(dirfd, path, &seen, 0) == 0;
    int fd = -1;
    int changes = flags & (O_CREAT | O_TRUNC) || (flags & O_ACCMODE) != O_RDONLY;
    if (!changes || before(OPEN, full) == GO) {
        fd = call(dirfd, path, flags, mode);
        if (fd >= 0) track(fd, full, !there, there && (flags & O_TRUNC) && seen.st_size > 0, !!changes);
    }
    UNLOCK;
    return fd;
}

#define MODE(flags) ({ mode_t m = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list a; \
    va_start(a, flags); m = va_arg(a, mode_t); va_end(a); } m; })
int open(const char *path, int flags, ...) { return open_any(AT_FDCWD, path, flags, MODE(flags)); }
int open64(const char *path, int flags, ...) { return open_any(AT_FDCWD, path, flags | O_LARGEFILE, MODE(flags)); }
int openat(int dir, const char *path, int flags, ...) { return open_any(dir, path, flags, MODE(flags)); }
int openat64(int dir, const char *path, int flags, ...) { return open_any(dir, path, flags | O_LARGEFILE, MODE(flags)); }
int creat(const char *path, mode_t mode) { return open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int fd) {
    static int (*call)(int);
    if (!call) call = REAL(close);
    if (tracked(fd)) { pthread_mutex_lock(&mutex); forget(fd); pthread_mutex_unlock(&mutex); }
    return call(fd);
}

static FILE *fopen_any(const char *name, const char *path, const char *mode) {
    FILE *(*call)(const char *, const char *) = real(name);
    char full[PATH_MAX];
    if (watched_len) absolute(AT_FDCWD, path, full);
    if (!watched_len || !is_watched(full)) return call(path, mode);
    LOCK;
    struct stat seen;
    int there = stat(path, &seen) == 0;
    FILE *file = 0;
    if (mode[0] == 'r' || before(OPEN, full) == GO) {
        file = call(path, mode);
        if (file) track(fileno(file), full, !there, there && mode[0] == 'w', mode[0] != 'r');
    }
    UNLOCK;
    return file;
}
FILE *fopen(const char *path, const char *mode) { return fopen_any("fopen", path, mode); }
FILE *fopen64(const char *path, const char *mode) { return fopen_any("fopen64", path, mode); }

int fclose(FILE *file) {
    static int (*call)(FILE *);
    if (!call) call = REAL(fclose);
    int fd = fileno(file);
    if (tracked(fd)) { pthread_mutex_lock(&mutex); fflush(file); forget(fd); pthread_mutex_unlock(&mutex); }
    return call(file);
}

size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
    static size_t (*call)(const void *, size_t, size_t, FILE *);
    if (!call) call = REAL(fwrite);
    int fd = fileno(file);
    if (!tracked(fd)) return call(data, size, count, file);
    LOCK;
    size_t done = 0;
    if (before(WRITE, paths[fd]) == GO) {
        int64_t at = ftello(file);
        done = call(data, size, count, file);
        fflush(file);
        put(WRITE, handle_of(fd), at, paths[fd], 0, data, (uint32_t)(size * done), 0);
    }
    UNLOCK;
    return done;
}

/* Says whether the fsync of a file, by any descriptor, failed and nothing was written to it since.
 * With add = 1 it has just failed, with -1 it was written to. */
static int find_failed(int fd, int add) {
    struct stat seen;
    if (fstat(fd, &seen) || !S_ISREG(seen.st_mode)) return 0;
    int i = 0;
    while (i < n_failed && (failed_fsync[i].device != seen.st_dev || failed_fsync[i].inode != seen.st_ino)) i++;
    int found = i < n_failed;
    if (add > 0 && !found && n_failed < MAX_FAILED) {
        failed_fsync[n_failed].device = seen.st_dev;
        failed_fsync[n_failed++].inode = seen.st_ino;
    }
    if (add < 0 && found) failed_fsync[i] = failed_fsync[--n_failed];
    return found;
}

static int64_t position(int fd) {
    if (fcntl(fd, F_GETFL) & O_APPEND) {
        struct stat seen;
        return fstat(fd, &seen) ? 0 : seen.st_size;
    }
    return lseek(fd, 0, SEEK_CUR);
}

static ssize_t write_any(int fd, const void *data, size_t size, int64_t at, int has_offset) {
    static ssize_t (*plain)(int, const void *, size_t);
    static ssize_t (*placed)(int, const void *, size_t, off64_t);
    if (!plain) { plain = REAL(write); placed = real("pwrite64"); }
    if (!tracked(fd)) return has_offset ? placed(fd, data, size, at) : plain(fd, data, size);
    LOCK;
    ssize_t done = -1;
    int what = before(WRITE, paths[fd]);
    if (what != REFUSE) {
        if (what == CUT && size > 1) size /= 2;
        int64_t where = has_offset ? at : position(fd);
        done = has_offset ? placed(fd, data, size, at) : plain(fd, data, size);
        if (done > 0 && n_failed) find_failed(fd, -1);
        if (done > 0) put(WRITE, handle_of(fd), where, paths[fd], 0, data, (uint32_t)done, 0);
    }
    UNLOCK;
    return done;
}
ssize_t write(int fd, const void *data, size_t size) { return write_any(fd, data, size, 0, 0); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return write_any(fd, data, size, at, 1); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { return write_any(fd, data, size, at, 1); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    static ssize_t (*call)(int, const struct iovec *, int);
    if (!call) call = REAL(writev);
    if (!tracked(fd)) return call(fd, parts, count);
    ssize_t total = 0;
    for (int i = 0; i < count; i++) {
        ssize_t done = write_any(fd, parts[i].iov_base, parts[i].iov_len, 0, 0);
        if (done < 0) return total ? total : -1;
        total += done;
        if ((size_t)done < parts[i].iov_len) break;
    }
    return total;
}

/* Copying inside the kernel is not seen: say that it is not there, and callers fall back. */
ssize_t copy_file_range(int in, off64_t *at, int out, off64_t *to, size_t size, unsigned flags) {
    if (tracked(out)) { errno = EXDEV; return -1; }
    return syscall(SYS_copy_file_range, in, at, out, to, size, flags);
}
ssize_t sendfile(int out, int in, off_t *at, size_t size) {
    if (tracked(out)) { errno = EINVAL; return -1; }
    return syscall(SYS_sendfile, out, in, at, size);
}
ssize_t sendfile64(int out, int in, off64_t *at, size_t size) { return sendfile(out, in, at, size); }

static int sync_any(int fd, const char *name) {
    int (*call)(int) = real(name);
    if (!tracked(fd)) return call(fd);
    LOCK;
    int result = -1;
    if (n_failed && find_failed(fd, 0)) retried_fsyncs++;
    if (before(FSYNC, paths[fd]) == GO) {
        result = call(fd);
        if (!result) put(FSYNC, handle_of(fd), 0, paths[fd], 0, 0, 0, 0);
    } else {
        find_failed(fd, 1);
        put(FSYNC_FAILED, handle_of(fd), 0, paths[fd], 0, 0, 0, 0);
    }
    UNLOCK;
    return result;
}
int fsync(int fd) { return sync_any(fd, "fsync"); }
int fdatasync(int fd) { return sync_any(fd, "fdatasync"); }

static int truncate_any(int fd, off64_t size) {
    static int (*call)(int, off64_t);
    if (!call) call = real("ftruncate64");
    if (!tracked(fd)) return call(fd, size);
    LOCK;
    int result = -1;
    if (before(TRUNCATE, paths[fd]) == GO) {
        result = call(fd, size);
        if (!result) put(TRUNCATE, handle_of(fd), size, paths[fd], 0, 0, 0, 0);
    }
    UNLOCK;
    return result;
}
int ftruncate(int fd, off_t size) { return truncate_any(fd, size); }
int ftruncate64(int fd, off64_t size) { return truncate_any(fd, size); }
int posix_fallocate(int fd, off_t at, off_t size) {
    struct stat seen;
    if (!tracked(fd)) return (int)syscall(SYS_fallocate, fd, 0, at, size) ? errno : 0;
    if (fstat(fd, &seen)) return errno;
    return seen.st_size < at + size && truncate_any(fd, at + size) ? errno : 0;
}
int truncate(const char *path, off_t size) {
    int fd = open(path, O_WRONLY);
    if (fd < 0) return -1;
    int result = truncate_any(fd, size), saved = errno;
    close(fd);
    errno = saved;
    return result;
}
int truncate64(const char *path, off64_t size) { return truncate(path, size); }

/* An event on one or two names; `target` is the second path of a rename or link. */
#define NAMED(event, dir, path, dir2, path2, CALL)                                   \
    char full[PATH_MAX], target[PATH_MAX] = "";                                      \
    if (!watched_len) return CALL;                                                   \
    absolute(dir, path, full);                                                       \
    const char *second = path2;                                                      \
    if (second) absolute(dir2, second, target);                                      \
    const char *shown = second && is_watched(target) ? target : full;                \
    if (!is_watched(shown)) return CALL;                                             \
    LOCK;                                                                            \
    int result = -1;                                                                 \
    if (before(event, shown) == GO) {                                                \
        result = CALL;                                                               \
        if (!result) put(event, 0, 0, full, second ? target : 0, 0, 0, 0);           \
    }                                                                                \
    UNLOCK;                                                                          \
    return result

static int rename_call(int d, const char *a, int d2, const char *b, unsigned flags) {
    return (int)syscall(SYS_renameat2, d, a, d2, b, flags);
}
int renameat2(int d, const char *a, int d2, const char *b, unsigned flags) {
    NAMED(RENAME, d, a, d2, b, rename_call(d, a, d2, b, flags));
}
int renameat(int d, const char *a, int d2, const char *b) { return renameat2(d, a, d2, b, 0); }
int rename(const char *a, const char *b) { return renameat2(AT_FDCWD, a, AT_FDCWD, b, 0); }

int linkat(int d, const char *a, int d2, const char *b, int flags) {
    NAMED(LINK, d, a, d2, b, (int)syscall(SYS_linkat, d, a, d2, b, flags));
}
int link(const char *a, const char *b) { return linkat(AT_FDCWD, a, AT_FDCWD, b, 0); }

int unlinkat(int d, const char *a, int flags) {
    NAMED(flags & AT_REMOVEDIR ? RMDIR : UNLINK, d, a, 0, 0, (int)syscall(SYS_unlinkat, d, a, flags));
}
int unlink(const char *a) { return unlinkat(AT_FDCWD, a, 0); }
int rmdir(const char *a) { return unlinkat(AT_FDCWD, a, AT_REMOVEDIR); }

int mkdirat(int d, const char *a, mode_t mode) {
    NAMED(MKDIR, d, a, 0, 0, (int)syscall(SYS_mkdirat, d, a, mode));
}
int mkdir(const char *a, mode_t mode) { return mkdirat(AT_FDCWD, a, mode); }

/* --- what Python calls ------------------------------------------------------------------- */

void shim_watch(const char *directory) {
    snprintf(watched, sizeof watched, "%s", directory);
    watched_len = strlen(watched);
}

void shim_record(const char *path) {
    pthread_mutex_lock(&mutex);
    if (log_fd >= 0) syscall(SYS_close, log_fd);
    log_fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path,
                                 O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600) : -1;
    pthread_mutex_unlock(&mutex);
}

void shim_mark(const char *text) {
    pthread_mutex_lock(&mutex);
    put(MARK, 0, 0, 0, 0, text, (uint32_t)strlen(text), 0);
    pthread_mutex_unlock(&mutex);
}

void shim_arm(int action, unsigned events, const char *place, long nth, int error, int sticky) {
    pthread_mutex_lock(&mutex);
    memset(&rule, 0, sizeof rule);
    rule.action = action;
    rule.events = events;
    rule.nth = nth;
    rule.error = error;
    rule.sticky = sticky;
    snprintf(rule.place, sizeof rule.place, "%s", place ? place : "");
    pthread_mutex_unlock(&mutex);
}

int shim_fired(void) { return rule.fired; }
long shim_count(void) { return rule.count; }
long shim_retried_fsyncs(void) { return retried_fsyncs; }

__attribute__((constructor)) static void start(void) {
    const char *directory = getenv("SHIM_WATCH"), *path = getenv("SHIM_LOG");
    if (directory) shim_watch(directory);
    if (path) shim_record(path);
}
