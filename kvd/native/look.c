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

PyObject *
look_at(PyObject *Py_UNUSED(module), PyObject *args)
{
    int folder;
    PyObject *names;
    long long before_ns, expired_ns, future_ns, taken = 0;
    Py_ssize_t values = 0;
    if (!PyArg_ParseTuple(args, "iO!LLL:look_at", &folder, &PyList_Type, &names,
                          &before_ns, &expired_ns, &future_ns))
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
        values++;
        taken += taken_by((unsigned long long)status.st_size);
        long long accessed_ns = nanoseconds(status.st_atim);
        long long changed_ns = nanoseconds(status.st_mtim);
        if (accessed_ns >= before_ns && accessed_ns <= future_ns
            && changed_ns >= expired_ns)
            continue;
        PyObject *one = Py_BuildValue("(OLLKL)", name, accessed_ns, changed_ns,
                                      (unsigned long long)status.st_ino,
                                      taken_by((unsigned long long)status.st_size));
        if (one == NULL || PyList_Append(notable, one) < 0)
            Py_CLEAR(notable);
        Py_XDECREF(one);
    }
    return notable == NULL ? NULL : Py_BuildValue("(nLN)", values, taken, notable);
}
