/*
 * Syncs, as kvd.store.sync promises; and threads for them, which know nothing of Python:
 * what kvd.store.threads does, without a turn of the interpreter for each.
 *
 * Each file has a thread of its own, and so has each path of folders, as long as there may be
 * more threads; they are started as they are needed. Clients wait longer already for folders
 * than for files, so these come first.
 *
 * What a turn of the reactor wants synced is gathered, and handed to the threads at its end,
 * before the reactor waits. If the first thread began at once, the file system would commit
 * its journal for that file alone, and the others would wait for the next commit; and one
 * system call wakes all threads. Files that are handed over together are a group, and so are
 * paths: the same commit writes them, as long as they are small, so they are told of together,
 * when the last one is synced. No file is larger than what one event reads, so none keeps the
 * others for long. A file that comes alone is a group of its own, and waits for no other.
 *
 * Groups that are synced are collected, and an event tells once of all since it was last read.
 * One commit wakes many threads at the same moment, so they collect without a lock.
 */

#include "fast_path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

/* fsync(2) needs little; what a thread never touches takes no memory. */
#define STACK_BYTES (128 * 1024)

typedef struct {
    Sync *first, **end;
} Queue;

typedef struct {
    Sync *leader, *last;        /* NULL: it is empty */
} Group;

typedef struct Thread {
    pthread_t id;
    struct Syncs *syncs;
    Sync *given;                /* what it is woken for; changed atomically */
    struct Thread *next;        /* of those that are idle */
} Thread;

struct Syncs {
    pthread_mutex_t mutex;      /* for these two */
    Queue waiting;
    Thread *idle;               /* the last one first, since its memory is in the caches */
    /* Changed atomically: */
    int is_ending;
    uint32_t calls;             /* how often threads were woken: idle ones wait for another */
    Sync *done;                 /* leaders of groups, the last first */
    /* The reactor's thread's alone: */
    int gathers;
    Group files, paths;         /* that are gathered */
    unsigned int gathered, underway, threads, most_threads;
    int event;
    Thread all[];
};

static void
clear(Queue *queue)
{
    queue->first = NULL;
    queue->end = &queue->first;
}

static void
put(Queue *queue, Sync *sync)
{
    if (sync->path != NULL) {
        sync->next = queue->first;
        if (queue->first == NULL)
            queue->end = &sync->next;
        queue->first = sync;
        return;
    }
    sync->next = NULL;
    *queue->end = sync;
    queue->end = &sync->next;
}

/* Where the syncs of this process are counted, by whichever thread (kvd.ipc.syncs). */
static struct {
    pthread_mutex_t mutex;
    Py_buffer row;              /* without a buffer: nowhere */
    Py_ssize_t at;              /* nanoseconds; then a histogram */
    Durations durations;
} counting = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void
count_sync(double seconds)
{
    pthread_mutex_lock(&counting.mutex);
    if (counting.row.buf != NULL) {
        unsigned long long *words = (unsigned long long *)counting.row.buf + counting.at;
        words[0] += (unsigned long long)(seconds * 1e9);
        words[1 + bucket_of(&counting.durations, seconds)] += 1;
    }
    pthread_mutex_unlock(&counting.mutex);
}

PyObject *
count_syncs(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *row, *buckets;
    Py_ssize_t at;
    int least_exponent;
    Py_buffer buffer = {0}, before;
    Durations durations;
    if (!PyArg_ParseTuple(args, "OnO!i:count_syncs", &row, &at, &PyTuple_Type, &buckets,
                          &least_exponent)
        || read_durations(&durations, buckets, least_exponent) < 0
        || (row != Py_None && PyObject_GetBuffer(row, &buffer, PyBUF_WRITABLE) < 0))
        return NULL;
    if (buffer.buf != NULL && (at < 0 || at + 1 + durations.most >= buffer.len / 8)) {
        PyBuffer_Release(&buffer);
        PyErr_SetString(PyExc_ValueError, "the row has no room for these words");
        return NULL;
    }
    pthread_mutex_lock(&counting.mutex);
    before = counting.row;
    counting.row = buffer;
    counting.at = at;
    counting.durations = durations;
    pthread_mutex_unlock(&counting.mutex);
    PyBuffer_Release(&before);
    Py_RETURN_NONE;
}

static int
sync_uncounted(int descriptor)
{
    struct stat status;
    struct statvfs system;
    if (fsync(descriptor) < 0 || fstat(descriptor, &status) < 0
        || fstatvfs(descriptor, &system) < 0)
        return errno;
    return system.f_flag & ST_RDONLY ? EROFS : 0;
}

/*
 * As `sync` of kvd.store.sync: success of fsync(2) is not enough, and after a failure it
 * must not be called again. Returns 0 or an errno.
 */
static int
sync_now(int descriptor)
{
    double began = now();
    int error = sync_uncounted(descriptor);
    count_sync(now() - began);
    return error;
}

/*
 * Sync the folders on a path from the root, from the one at a depth on; the root is at 0.
 * Returns 0, or an errno and the depth of the folder that has it.
 */
static int
sync_path(int root, const char *path, Py_ssize_t first, Py_ssize_t *depth)
{
    char name[NAME_MAX + 1];
    const char *at = path;
    *depth = 0;
    int folder = dup(root), error = folder < 0 ? errno : 0;
    if (error == 0 && first == 0)
        error = sync_now(folder);
    while (error == 0 && *at) {
        const char *end = strchrnul(at, '/');
        size_t size = Py_MIN((size_t)(end - at), sizeof name - 1);
        memcpy(name, at, size);
        name[size] = 0;
        at = *end ? end + 1 : end;
        int inner = openat(folder, name,
                           O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (inner < 0 && (errno == ENOENT || errno == ENOTDIR)) {
            /* Pruned, perhaps after the folder around it was synced: sync that again. */
            error = sync_now(folder);
            break;
        }
        ++*depth;
        if (inner < 0) {
            error = errno;
            break;
        }
        close(folder);
        folder = inner;
        if (*depth >= first)
            error = sync_now(folder);
    }
    if (folder >= 0)
        close(folder);
    return error;
}

PyObject *
sync_descriptor(PyObject *Py_UNUSED(module), PyObject *argument)
{
    long descriptor = PyLong_AsLong(argument);
    if (descriptor == -1 && PyErr_Occurred())
        return NULL;
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = sync_now((int)descriptor);
    Py_END_ALLOW_THREADS
    if (error) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

PyObject *
sync_folders(PyObject *Py_UNUSED(module), PyObject *args)
{
    int root, error;
    const char *path;
    Py_ssize_t first, depth;
    if (!PyArg_ParseTuple(args, "iyn:sync_folders", &root, &path, &first))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    error = sync_path(root, path, first, &depth);
    Py_END_ALLOW_THREADS
    if (error == 0)
        Py_RETURN_NONE;
    return Py_BuildValue("(ni)", depth, error);
}

/* Do what is asked; `take_synced` takes it when all of its group is done. */
static void
do_now(Syncs *self, Sync *sync)
{
    uint64_t one = 1;
    Sync *leader = sync->leader;
    sync->error = sync->path == NULL
        ? sync_now(sync->descriptor)
        : sync_path(sync->descriptor, sync->path, sync->first, &sync->depth);
    if (__atomic_sub_fetch(&leader->undone, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    Sync *last = __atomic_load_n(&self->done, __ATOMIC_RELAXED);
    do
        leader->next = last;
    while (!__atomic_compare_exchange_n(&self->done, &last, leader, 1, __ATOMIC_RELEASE,
                                        __ATOMIC_RELAXED));
    /* The first since they were taken. It cannot fail: nobody counts so far. */
    if (last == NULL)
        (void)!write(self->event, &one, sizeof one);
}

/* A thread's bit among those of `wake`. Threads may share one. */
static uint32_t
bit_of(const Thread *thread)
{
    return 1U << (thread - thread->syncs->all) % 32;
}

/* Wake idle threads, which find what they were given, or that they are to end. */
static void
wake(Syncs *self, uint32_t bits)
{
    __atomic_add_fetch(&self->calls, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, &self->calls, FUTEX_WAKE_BITSET_PRIVATE, INT_MAX, NULL, NULL, bits);
}

/* Wait for what an idle thread is given; NULL at the end. */
static Sync *
wait_idle(Thread *self)
{
    Syncs *syncs = self->syncs;
    for (;;) {
        uint32_t calls = __atomic_load_n(&syncs->calls, __ATOMIC_ACQUIRE);
        /* Before it looks what it was given: that comes first, and the end after it. */
        int is_ending = __atomic_load_n(&syncs->is_ending, __ATOMIC_ACQUIRE);
        Sync *given = __atomic_exchange_n(&self->given, NULL, __ATOMIC_ACQUIRE);
        if (given != NULL || is_ending)
            return given;
        /* Not with a condition variable: it wakes any threads, and each would have to lock
           its mutex again, which others hold. Not with a semaphore for each: to wake a
           thread takes as long as some of the system calls of a PUT. */
        syscall(SYS_futex, &syncs->calls, FUTEX_WAIT_BITSET_PRIVATE, calls, NULL, NULL,
                bit_of(self));
    }
}

/* The first that waits; if there is none, what comes next. NULL at the end. */
static Sync *
next_of(Thread *self)
{
    Syncs *syncs = self->syncs;
    pthread_mutex_lock(&syncs->mutex);
    Sync *sync = syncs->waiting.first;
    if (sync == NULL) {
        self->next = syncs->idle;
        syncs->idle = self;
    } else if ((syncs->waiting.first = sync->next) == NULL)
        clear(&syncs->waiting);
    pthread_mutex_unlock(&syncs->mutex);
    return sync != NULL ? sync : wait_idle(self);
}

static void *
work(void *argument)
{
    Thread *self = argument;
    Sync *sync;
    while ((sync = next_of(self)) != NULL)
        do_now(self->syncs, sync);
    return NULL;
}

/* Start another thread. Signals are the reactor's thread's. */
static void
start(Syncs *self)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    if (pthread_attr_init(&attributes) != 0)
        return;
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    Thread *thread = &self->all[self->threads];
    thread->syncs = self;
    thread->given = NULL;
    if (pthread_create(&thread->id, &attributes, work, thread) == 0)
        self->threads++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

/* Returns NULL with an exception. */
Syncs *
new_syncs(unsigned int most_threads)
{
    Syncs *self = PyMem_Calloc(1, sizeof *self + most_threads * sizeof *self->all);
    if (self == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    self->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self->event < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        PyMem_Free(self);
        return NULL;
    }
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    /* It is held for so short a time that to wait is cheaper than to sleep. */
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
    pthread_mutex_init(&self->mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
    clear(&self->waiting);
    self->most_threads = most_threads;
    return self;
}

/* A descriptor that can be read when something is synced. */
int
event_of(const Syncs *self)
{
    return self->event;
}

static void
add(Group *group, Sync *sync)
{
    sync->fellow = NULL;
    if (group->leader == NULL) {
        group->leader = sync;
        sync->undone = 0;
    } else
        group->last->fellow = sync;
    group->last = sync;
    sync->leader = group->leader;
    group->leader->undone++;
}

/*
 * Sync a file, or the folders on a path, and give it back by `take_synced`. It waits for a
 * thread only if all that may be are busy, and for `hand_over_syncs` if that is called;
 * without threads, the caller waits for the sync.
 *
 * Returns 0; -1 if there should be a thread and none can be started.
 */
int
sync_later(Syncs *self, Sync *sync)
{
    if (self->threads < Py_MIN(self->underway + 1, self->most_threads))
        start(self);
    if (self->threads == 0 && self->most_threads > 0)
        return -1;
    self->underway++;
    if (self->threads == 0) {
        Group alone = {NULL, NULL};
        add(&alone, sync);
        do_now(self, sync);
        return 0;
    }
    add(sync->path == NULL ? &self->files : &self->paths, sync);
    /* Each of these has a thread. More would only wait longer. */
    if (++self->gathered >= self->most_threads || !self->gathers)
        hand_over_syncs(self);
    return 0;
}

/* From now on, what is to be synced waits for `hand_over_syncs`. */
void
gather_syncs(Syncs *self)
{
    self->gathers = 1;
}

/* Give a group to idle threads, as far as there are any. Returns their bits. */
static uint32_t
give(Syncs *self, Group *group)
{
    uint32_t bits = 0;
    for (Sync *sync = group->leader; sync != NULL; sync = sync->fellow) {
        Thread *thread = self->idle;
        if (thread == NULL)
            put(&self->waiting, sync);
        else {
            self->idle = thread->next;
            bits |= bit_of(thread);
            __atomic_store_n(&thread->given, sync, __ATOMIC_RELEASE);
        }
    }
    *group = (Group){NULL, NULL};
    return bits;
}

/* Give the threads what is gathered. */
void
hand_over_syncs(Syncs *self)
{
    if (self->gathered == 0)
        return;
    self->gathered = 0;
    pthread_mutex_lock(&self->mutex);
    uint32_t bits = give(self, &self->paths);
    bits |= give(self, &self->files);
    pthread_mutex_unlock(&self->mutex);
    if (bits)
        wake(self, bits);
}

/* All groups that are synced, in the order in which they became so. */
Sync *
take_synced(Syncs *self)
{
    uint64_t ignored;
    /* Before they are taken: what comes later tells again. */
    (void)!read(self->event, &ignored, sizeof ignored);
    Sync *first = NULL, *leader = __atomic_exchange_n(&self->done, NULL, __ATOMIC_ACQUIRE);
    while (leader != NULL) {
        Sync *before = leader->next, *last = leader;
        self->underway--;
        for (; last->fellow != NULL; last = last->fellow) {
            last->next = last->fellow;
            self->underway--;
        }
        last->next = first;
        first = leader;
        leader = before;
    }
    return first;
}

/* Finish everything, and end the threads. Nothing may follow. Returns what was not taken. */
Sync *
end_syncs(Syncs *self)
{
    hand_over_syncs(self);
    __atomic_store_n(&self->is_ending, 1, __ATOMIC_RELEASE);
    wake(self, UINT32_MAX);
    while (self->threads > 0)
        pthread_join(self->all[--self->threads].id, NULL);
    return take_synced(self);
}

/* After `end_syncs`. */
void
free_syncs(Syncs *self)
{
    close(self->event);
    pthread_mutex_destroy(&self->mutex);
    PyMem_Free(self);
}
