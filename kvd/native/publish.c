/*
 * Writing a value and giving it its key's name, as kvd.store.tree does.
 */

#include "fast_path.h"

#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <unistd.h>

/* These three as kvd.store.tree. */
#define SPARE_SHARE 16
#define SPARE_BYTES (1ULL << 30)
#define SPARE_TIMES 4

static const char LOCK_PATH[] = ".kvd/lock";

int
find_lock(FastPath *self)
{
    struct stat status;
    if (fstat(self->lock, &status) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    self->lock_device = status.st_dev;
    self->lock_inode = status.st_ino;
    return 0;
}

/*
 * Whether the file of locks is still the one that is found by its name, and its status.
 * Who opens it after somebody has replaced it locks another one.
 */
static int
is_found(const FastPath *self, struct stat *status)
{
    return fstatat(self->root, LOCK_PATH, status, AT_SYMLINK_NOFOLLOW) == 0
        && status->st_ino == self->lock_inode && status->st_dev == self->lock_device;
}

/* The current epoch; 0 for none (kvd.store.epochs). */
static long
epoch_of(const FastPath *self, const struct stat *lock)
{
    long fraction = self->has_epochs ? lock->st_mtim.tv_nsec : 0;
    return fraction % 1000 ? fraction : 0;
}

/* Whether the last byte of a file has no place on the disk yet, as
   kvd.store.unwritten says. */
static int
has_no_place(int folder, const char *name, unsigned long long bytes)
{
    struct {
        struct fiemap map;
        struct fiemap_extent extent;
    } found = {.map = {.fm_start = bytes - 1, .fm_length = 1, .fm_extent_count = 1}};
    if (bytes == 0)
        return 0;
    int file = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file < 0)
        return 0;
    int is_found = ioctl(file, FS_IOC_FIEMAP, &found) == 0
        && found.map.fm_mapped_extents > 0;
    close(file);
    return is_found && (found.extent.fe_flags & FIEMAP_EXTENT_DELALLOC);
}

/*
 * Whether a value that was replaced has never been on the disk, as kvd.store.epochs
 * says. It has `epoch`, which was the current one before that.
 */
static int
is_unsynced(const FastPath *self, const char *upload, long epoch,
            unsigned long long bytes)
{
    struct stat status;
    return epoch != 0 && fstat(self->lock, &status) == 0
        && epoch_of(self, &status) == epoch
        && has_no_place(self->uploads, upload, bytes);
}

static int
set_lock(int lock, short kind, long long offset)
{
    struct flock request = {
        .l_type = kind, .l_whence = SEEK_SET, .l_start = offset, .l_len = 1,
    };
    return fcntl(lock, F_OFD_SETLK, &request);
}

/*
 * Whether there is room for a value, and how much; with `keeps`, enough to keep what it
 * replaces too, if that is not larger than can be kept (kvd.store.tree).
 */
static int
has_room(int root, Py_ssize_t length, int keeps, unsigned long long *room)
{
    struct statfs space;
    if (fstatfs(root, &space) < 0)
        return 0;
    unsigned long long unit
        = (unsigned long long)(space.f_frsize ? space.f_frsize : space.f_bsize);
    *room = (unsigned long long)space.f_bavail * unit;
    if (space.f_blocks == 0)
        return !keeps;
    return (unsigned long long)length <= *room
        && (!keeps || *room >= Py_MIN((unsigned long long)space.f_blocks * unit
                                      / SPARE_SHARE, SPARE_BYTES));
}

/*
 * Give a written file its key's name, while the key is locked.
 *
 * With `keeps`, what it replaces gets the upload's name and stays, unless no sync has
 * begun since it was published; `room` says how much there is.
 *
 * Returns CREATED, REPLACED, KEPT if what it replaced stays; -1 if it was not done.
 */
static int
place(const FastPath *self, const char *upload, int file, Py_ssize_t length,
      PyObject *lines, const char *id, int folder, const char *name, long long offset,
      int keeps, unsigned long long room)
{
    if (set_lock(self->lock, F_WRLCK, offset) < 0)
        return -1;
    unsigned long long earliest_us = 0, bytes = 0;
    long epoch = 0, value_epoch = 0;
    int replaces = -1;
    struct stat status;
    if (is_found(self, &status)) {
        epoch = epoch_of(self, &status);
        replaces = has_value(folder, name, &earliest_us, &value_epoch, &bytes);
    }
    if (replaces > 0 && keeps && bytes > room / SPARE_TIMES)
        replaces = -1;
    if (replaces >= 0 && seal(file, id, length, lines, earliest_us, epoch) < 0)
        replaces = -1;
    if (replaces >= 0) {
        if (replaces && (keeps || self->exchanges)) {
            if (renameat2(self->uploads, upload, folder, name, RENAME_EXCHANGE) < 0)
                replaces = -1;
            else if (!keeps
                     || (epoch == value_epoch
                         && is_unsynced(self, upload, epoch, bytes)))
                /* Left over if that fails: swept with the folder. */
                unlinkat(self->uploads, upload, 0);
            else
                replaces = KEPT;
        } else if (renameat(self->uploads, upload, folder, name) < 0)
            replaces = -1;
    }
    set_lock(self->lock, F_UNLCK, offset);
    return replaces;
}

/*
 * Write a value and publish it. Returns as `place`; after -1 nothing is left.
 */
int
publish(FastPath *self, const char *upload, char *key, const char *body,
        Py_ssize_t length, PyObject *lines, const char *id, long long offset, int keeps)
{
    int folder = self->root, result = -1, is_kept = 1;
    struct stat status;
    unsigned long long room;
    char *name = strrchr(key, '/');
    if (name == NULL) {
        name = key;
        if (fstat(folder, &status) < 0)
            return -1;
    } else {
        *name = 0;
        folder = open_folder(self, key, &is_kept, &status);
        *name++ = '/';
        if (folder < 0)
            return -1;
    }
    if (has_room(self->root, length, keeps, &room)
        && is_conferred_alike(&self->conferred, folder, &status)) {
        int file = openat(self->uploads, upload,
                          O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                          self->conferred.list_bytes ? 0666 : self->mode);
        if (file >= 0) {
            Py_ssize_t written = 0;
            while (written < length) {
                ssize_t count = write(file, body + written, (size_t)(length - written));
                if (count <= 0)
                    break;
                written += count;
            }
            if (written == length)
                result = place(self, upload, file, length, lines, id, folder, name,
                               offset, keeps, room);
            if (result < 0)
                unlinkat(self->uploads, upload, 0);
            close(file);
        }
    }
    if (!is_kept)
        close(folder);
    return result;
}
