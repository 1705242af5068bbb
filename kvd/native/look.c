/*
 * Looking at the files of a folder, as kvd.store.looking says.
 */

#include "fast_path.h"

#include <fcntl.h>

static long long
nanoseconds(struct timespec time)
{
    return (long long)time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* Add a value to all lists. Returns -1 with an exception. */
static int
remember_in(PyObject *lists, const struct stat *status, const char *prefix,
            Py_ssize_t prefix_bytes, const char *name)
{
    for (Py_ssize_t i = 0; i < PyTuple_Size(lists); i++) {
        PyObject *list = PyTuple_GetItem(lists, i);
        if (Py_TYPE(list) != CandidatesType) {
            PyErr_SetString(PyExc_TypeError, "a list has no candidates");
            return -1;
        }
        if (remember_value((Candidates *)list, nanoseconds(status->st_atim),
                           (unsigned long long)status->st_ino, prefix,
                           (size_t)prefix_bytes, name, strlen(name)) < 0)
            return -1;
    }
    return 0;
}

PyObject *
look_at(PyObject *Py_UNUSED(module), PyObject *args)
{
    int folder;
    const char *prefix;
    Py_ssize_t prefix_bytes, values = 0;
    PyObject *names, *lists;
    long long expired_ns, future_ns, taken = 0;
    if (!PyArg_ParseTuple(args, "iy#O!O!LL:look_at", &folder, &prefix, &prefix_bytes,
                          &PyList_Type, &names, &PyTuple_Type, &lists, &expired_ns,
                          &future_ns))
        return NULL;
    PyObject *notable = PyList_New(0);
    for (Py_ssize_t i = 0; notable != NULL && i < PyList_Size(names); i++) {
        PyObject *name = PyList_GetItem(names, i);
        const char *text = PyBytes_AsString(name);
        struct stat status;
        if (text == NULL) {
            Py_CLEAR(notable);
            break;
        }
        if (fstatat(folder, text, &status, AT_SYMLINK_NOFOLLOW) < 0
            || !S_ISREG(status.st_mode))
            continue;
        long long bytes = taken_by((unsigned long long)status.st_size);
        long long accessed_ns = nanoseconds(status.st_atim);
        long long changed_ns = nanoseconds(status.st_mtim);
        values++;
        taken += bytes;
        if (accessed_ns <= future_ns && changed_ns >= expired_ns) {
            if (remember_in(lists, &status, prefix, prefix_bytes, text) < 0)
                Py_CLEAR(notable);
            continue;
        }
        PyObject *one = Py_BuildValue("(OLLKL)", name, accessed_ns, changed_ns,
                                      (unsigned long long)status.st_ino, bytes);
        if (one == NULL || PyList_Append(notable, one) < 0)
            Py_CLEAR(notable);
        Py_XDECREF(one);
    }
    return notable == NULL ? NULL : Py_BuildValue("(nLN)", values, taken, notable);
}
