/*
 * Opens and makes folders below the root without following links, as kvd.store.folders
 * promises, and finds what they confer on files that are created in them, as
 * kvd.store.conferring describes.
 */

#include "fast_path.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

/* From Linux 5.6, newer than many headers. The number is the same except on alpha. */
#define SYS_OPENAT2 437

#define FOLDER_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

/* Open folders take at most this part of the descriptors. */
#define SHARE_OF_DESCRIPTORS 32

static const char LIST_NAME[] = "system.posix_acl_default";
static const char MARK_NAME[] = "user.kvd";

static void
close_folder(Folder *folder)
{
    if (folder->name[0])
        close(folder->descriptor);
    folder->name[0] = 0;
}

/* Close a descriptor, and keep errno. Returns -1. */
static int
give_up(int descriptor)
{
    int reason = errno;
    close(descriptor);
    errno = reason;
    return -1;
}

/* The default access control list of a folder. Returns its length; 0 for none. */
static ssize_t
read_list(int folder, char *list, size_t size)
{
    ssize_t found = fgetxattr(folder, LIST_NAME, list, size);
    return found < 0 && (errno == ENODATA || errno == EOPNOTSUPP) ? 0 : found;
}

/* The group that a folder of such a status confers; -1: that of the process. */
static long long
group_from(const struct stat *status)
{
    return status->st_mode & S_ISGID ? (long long)status->st_gid : -1;
}

/*
 * Find what a folder confers. Returns 0; -1 if that is unknown.
 */
static int
find_conferred(int folder, const struct stat *status, Conferred *found)
{
    found->group = group_from(status);
    found->list_bytes = read_list(folder, found->list, LIST_BYTES);
    return found->list_bytes < 0 ? -1 : 0;
}

PyObject *
default_list(PyObject *Py_UNUSED(module), PyObject *folder)
{
    char list[XATTR_SIZE_MAX];
    ssize_t list_bytes;
    long descriptor = PyLong_AsLong(folder);
    if (descriptor == -1 && PyErr_Occurred())
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    list_bytes = read_list((int)descriptor, list, sizeof list);
    Py_END_ALLOW_THREADS
    return list_bytes < 0 ? PyErr_SetFromErrno(PyExc_OSError)
                          : PyBytes_FromStringAndSize(list, (Py_ssize_t)list_bytes);
}

PyObject *
conferred_by(PyObject *Py_UNUSED(module), PyObject *folder)
{
    struct stat status;
    char list[XATTR_SIZE_MAX];
    ssize_t list_bytes = -1;
    long descriptor = PyLong_AsLong(folder);
    if (descriptor == -1 && PyErr_Occurred())
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    if (fstat((int)descriptor, &status) == 0)
        list_bytes = read_list((int)descriptor, list, sizeof list);
    Py_END_ALLOW_THREADS
    if (list_bytes < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    long long group = group_from(&status);
    return group < 0 ? Py_BuildValue("(Oy#)", Py_None, list, (Py_ssize_t)list_bytes)
                     : Py_BuildValue("(Ly#)", group, list, (Py_ssize_t)list_bytes);
}

/*
 * Whether a file gets the same group and access control list in the folder of a key as in
 * the folder of uploads.
 */
int
is_conferred_alike(const FastPath *self, const Parent *parent)
{
    const Conferred *one = &self->conferred;
    Conferred other;
    struct stat status;
    Looks *looks = parent->looks;
    if (looks != NULL && is_of_turn(self, looks->alike))
        return 1;
    if (fstat(parent->descriptor, &status) < 0
        || find_conferred(parent->descriptor, &status, &other) < 0
        || one->group != other.group || one->list_bytes != other.list_bytes
        || memcmp(one->list, other.list, (size_t)one->list_bytes))
        return 0;
    if (looks != NULL)
        looks->alike = self->turn;
    return 1;
}

/* As zlib.crc32. */
static uint32_t
checksum(const char *bytes, size_t size)
{
    uint32_t sum = 0xFFFFFFFF;
    for (size_t i = 0; i < size; i++) {
        sum ^= (unsigned char)bytes[i];
        for (int bit = 0; bit < 8; bit++)
            sum = (sum >> 1) ^ (sum & 1 ? 0xEDB88320 : 0);
    }
    return ~sum;
}

#define MARK_BYTES 64

/* Write the mark of a folder with such a status and default access control list. Returns its
   length. */
static int
write_mark(char *text, unsigned int mode, unsigned int user, unsigned int group,
           const char *list, size_t list_bytes)
{
    return snprintf(text, MARK_BYTES, "folder %o %u %u %x", mode & 07777, user, group,
                    checksum(list, list_bytes));
}

PyObject *
mark_text(PyObject *Py_UNUSED(module), PyObject *args)
{
    unsigned int mode, user, group;
    const char *list;
    Py_ssize_t list_bytes;
    char text[MARK_BYTES];
    if (!PyArg_ParseTuple(args, "IIIy#:mark_text", &mode, &user, &group, &list, &list_bytes))
        return NULL;
    return PyBytes_FromStringAndSize(
        text, write_mark(text, mode, user, group, list, (size_t)list_bytes));
}

/* Mark a new folder as made by kvd, if the file system keeps marks. */
static int
mark(int folder)
{
    struct stat status;
    char list[XATTR_SIZE_MAX], text[MARK_BYTES];
    ssize_t list_bytes = read_list(folder, list, sizeof list);
    if (list_bytes < 0 || fstat(folder, &status) < 0)
        return -1;
    int size = write_mark(text, status.st_mode, status.st_uid, status.st_gid, list,
                          (size_t)list_bytes);
    return fsetxattr(folder, MARK_NAME, text, (size_t)size, 0) < 0 && errno != EOPNOTSUPP
               ? -1 : 0;
}

/* Remove a folder that was just made, and is open unless `inner` is below 0: otherwise each
   request would leave another one behind. Keeps errno, and returns -1. */
static int
unmake(int folder, const char *name, int inner)
{
    int reason = errno;
    if (inner >= 0)
        close(inner);
    unlinkat(folder, name, AT_REMOVEDIR);
    errno = reason;
    return -1;
}

/* Make a folder and open it, as `make_folder` of kvd.store.conferring says. */
static int
make_folder(int folder, const char *name, mode_t mode)
{
    ssize_t list_bytes = read_list(folder, NULL, 0);
    if (list_bytes < 0 || mkdirat(folder, name, list_bytes ? 0777 : mode) < 0)
        return -1;
    int inner = openat(folder, name, FOLDER_FLAGS);
    if (inner < 0 && errno == ENOENT)
        return -1;          /* Another process has removed it. */
    struct stat status;
    if (inner >= 0
        && (list_bytes
            || (fstat(inner, &status) == 0
                && fchmod(inner, mode | (status.st_mode & S_ISGID)) == 0)))
        return inner;
    return unmake(folder, name, inner);
}

PyObject *
make_one_folder(PyObject *Py_UNUSED(module), PyObject *args)
{
    int folder, mode, inner;
    PyObject *name, *bytes;
    if (!PyArg_ParseTuple(args, "iOi:make_folder", &folder, &name, &mode)
        || !PyUnicode_FSConverter(name, &bytes))
        return NULL;
    const char *text = PyBytes_AsString(bytes);
    Py_BEGIN_ALLOW_THREADS
    inner = make_folder(folder, text, (mode_t)mode);
    Py_END_ALLOW_THREADS
    PyObject *made = inner < 0 ? PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, name)
                               : PyLong_FromLong(inner);
    Py_DECREF(bytes);
    return made;
}

/*
 * Make a missing folder, unless another process has just made it, and open it.
 *
 * Two descriptors are reserved for what follows: one to open the folder, one to prune it
 * if the next step fails. Otherwise a lack of descriptors would leave an empty folder.
 */
static int
make_missing(int folder, const char *name, mode_t mode)
{
    int reserved = dup(folder), other = reserved < 0 ? -1 : dup(folder), inner = -1;
    if (other >= 0) {
        close(other);
        inner = make_folder(folder, name, mode);
        if (inner >= 0 && mark(inner) < 0)
            inner = unmake(folder, name, inner);
    }
    if (reserved >= 0)
        give_up(reserved);
    if (inner < 0 && errno == EEXIST)
        inner = openat(folder, name, FOLDER_FLAGS);
    return inner;
}

/*
 * Open a path from the root that leads through folders only, not through links.
 */
int
open_beneath(int root, const char *path, int flags)
{
    /* struct open_how, with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS. */
    struct {
        uint64_t flags, mode, resolve;
    } how = {(uint64_t)(flags | O_CLOEXEC), 0, 0x08 | 0x04};
    return (int)syscall(SYS_OPENAT2, root, path, &how, sizeof how);
}

/*
 * Open the folder at the end of a path from the root.
 *
 * Without a mode (below 0), all of them must exist. Returns a descriptor; -1 with the
 * errno that kvd.store.folders promises.
 */
int
open_path(int root, const char *path, int mode)
{
    int folder = open_beneath(root, path, O_RDONLY | O_DIRECTORY);
    if (folder >= 0 || (errno == ENOENT && mode < 0))
        return folder;
    /* Open it name by name, to find the reason or to make what is missing. */
    char name[NAME_MAX + 1];
    folder = root;
    for (const char *at = path, *end; at != NULL; at = *end ? end + 1 : NULL) {
        end = strchrnul(at, '/');
        int inner = -1;
        if (end - at > NAME_MAX)
            errno = ENAMETOOLONG;
        else {
            memcpy(name, at, (size_t)(end - at));
            name[end - at] = 0;
            inner = openat(folder, name, FOLDER_FLAGS);
            if (inner < 0 && errno == ENOENT && mode >= 0)
                inner = make_missing(folder, name, (mode_t)mode);
        }
        if (folder != root)
            give_up(folder);
        if (inner < 0)
            return -1;
        folder = inner;
    }
    return folder;
}

PyObject *
open_folder(PyObject *Py_UNUSED(module), PyObject *args)
{
    int root, mode, folder;
    const char *path;
    if (!PyArg_ParseTuple(args, "iyi:open_folder", &root, &path, &mode))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    folder = open_path(root, path, mode);
    Py_END_ALLOW_THREADS
    return folder < 0 ? PyErr_SetFromErrno(PyExc_OSError) : PyLong_FromLong(folder);
}

/* For Python: the magic number of a folder's file system; 0 if it is unknown. */
PyObject *
magic_of(PyObject *Py_UNUSED(module), PyObject *folder)
{
    struct statfs found;
    long descriptor = PyLong_AsLong(folder);
    if (descriptor == -1 && PyErr_Occurred())
        return NULL;
    if (fstatfs((int)descriptor, &found) < 0)
        return PyLong_FromLong(0);
    return PyLong_FromLong((long)found.f_type);
}

/* How many folders are kept open at most. */
unsigned int
most_folders(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 1;
    rlim_t most = limit.rlim_cur / SHARE_OF_DESCRIPTORS;
    return (unsigned int)Py_MAX(1, Py_MIN(most, FOLDERS));
}

void
close_folders(FastPath *self)
{
    for (unsigned int i = 0; self->folders != NULL && i < self->most_folders; i++)
        close_folder(&self->folders[i]);
    free(self->folders);
    self->folders = NULL;
}

/*
 * Open the folder at the end of a path, all of which must exist.
 *
 * Recent folders in the root itself are kept open: to check that the name still leads to
 * the same folder is cheaper than to open and close it.
 *
 * Returns a descriptor; -1 for none.
 */
static int
enter_folder(FastPath *self, const char *path, Parent *parent)
{
    size_t size = strlen(path);
    struct stat status;
    Folder *kept = NULL;
    parent->is_kept = 0;
    parent->looks = NULL;
    if (self->folders == NULL)
        /* Not earlier: it would cost memory in workers that never use it. */
        self->folders = calloc(self->most_folders, sizeof *self->folders);
    if (self->folders != NULL && size < sizeof kept->name && strchr(path, '/') == NULL) {
        unsigned int sum = 0;
        for (size_t i = 0; i < size; i++)
            sum = 31 * sum + (unsigned char)path[i];
        kept = &self->folders[sum % self->most_folders];
        if (kept->name[0] && strcmp(kept->name, path) == 0
            && (is_of_turn(self, kept->looks.found)
                || (fstatat(self->root, path, &status, AT_SYMLINK_NOFOLLOW) == 0
                    && status.st_ino == kept->inode && status.st_dev == kept->device))) {
            parent->is_kept = 1;
            parent->looks = &kept->looks;
            kept->looks.found = self->turn;
            return kept->descriptor;
        }
    }
    int folder = open_path(self->root, path, -1);
    if (folder < 0 || kept == NULL)
        return folder;
    if (fstat(folder, &status) < 0)
        return give_up(folder);
    close_folder(kept);
    memcpy(kept->name, path, size + 1);
    kept->descriptor = folder;
    kept->inode = status.st_ino;
    kept->device = status.st_dev;
    kept->looks = (Looks){.found = self->turn};
    parent->is_kept = 1;
    parent->looks = &kept->looks;
    return folder;
}

/*
 * Open the folder of a key; if it is missing, the last one on its path that exists
 * (`enter_parent` of kvd.store.tree). Returns as `enter_folder`.
 */
int
enter_parent(FastPath *self, const char *key, Parent *parent)
{
    char path[MAX_KEY_BYTES + 1], *end;
    strcpy(path, key);
    parent->is_missing = 0;
    while ((end = strrchr(path, '/')) != NULL) {
        *end = 0;
        parent->descriptor = enter_folder(self, path, parent);
        if (parent->descriptor >= 0 || errno != ENOENT)
            return parent->descriptor;
        parent->is_missing = 1;
    }
    parent->is_kept = 1;
    parent->looks = &self->root_looks;
    return parent->descriptor = self->root;
}

void
leave_parent(const Parent *parent)
{
    if (parent->descriptor >= 0 && !parent->is_kept)
        close(parent->descriptor);
}
