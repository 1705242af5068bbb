/*
 * What the files of the dispatcher's compiled part share; dispatch.c says what it is.
 */

#ifndef KVD_DISPATCH_H
#define KVD_DISPATCH_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Where a scoreboard has what. */
typedef struct {
    Py_ssize_t row_words, open, begun, done;
} Words;

/* When a worker woke (0: it waits for events), and when it began to wait. */
typedef struct {
    Py_ssize_t awake, beat;
} Signs;

/* What a worker is doing. */
typedef struct {
    unsigned long long open, in_progress;
} Tasks;

/* Bounds a batch of decisions (kvd.dispatch.deciding). */
typedef struct {
    PyObject_HEAD
    double began;               /* seconds of this thread's processor time */
    int rings;                  /* how often it rang since then */
    double interval;
} Timer;

/* A batch on its way to a worker. */
typedef struct {
    unsigned long long number;
    double sent;
    PyObject *connections;      /* a list; NULL: one, or none if it was revoked */
    int descriptor, group;     /* of that one; below 0: none */
} Batch;

/* What is on its way to one worker (kvd.dispatch.lane). */
typedef struct {
    PyObject_HEAD
    int channel, credits;       /* descriptors */
    PyObject *queue;            /* of messages that the channel does not take yet */
    Py_buffer row;              /* two words: see Scoreboard.batches */
    unsigned long long refused;
    Py_ssize_t waiting, revoked;
    Batch *batches;             /* `count` of them, from `first` on; there is `room` */
    Py_ssize_t first, count, room;
} Lane;

/* How many fields a view has. */
#define FIELDS 7

/* A word that another process may be writing. */
static inline unsigned long long
read_word(const unsigned long long *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/* dispatch.c */
int has_rows(const Py_buffer *buffer, const Words *at, Py_ssize_t count);
Tasks tasks_of(const unsigned long long *words, const Words *at, Py_ssize_t worker);
int gives_signs(const unsigned long long *words, const Signs *at, Py_ssize_t row_words,
                Py_ssize_t worker, long long since, long long woken_since);
int set_number(PyObject *tuple, Py_ssize_t at, unsigned long long value);
int read_tasks(const unsigned long long *words, const Words *at, Py_ssize_t count,
               PyObject **connections, PyObject **requests);
PyObject *make_frozen(PyTypeObject *type, PyObject *names, PyObject *const *values);
void free_object(PyObject *self);

/* timer.c */
extern PyTypeObject *TimerType;
extern PyType_Spec Timer_spec;
void start_timer(Timer *self);
void stop_timer(void);

/* lane.c */
extern PyTypeObject *LaneType;
extern PyType_Spec Lane_spec;
Batch *next_batch(Lane *self);
void read_done(Lane *self);

/* gate.c */
extern PyType_Spec Answers_spec;

/* lone.c */
extern PyType_Spec Lone_spec;

#endif
