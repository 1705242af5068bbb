/*
 * What this process has published in place of other values, so that the next PUT of such a key
 * need not read the attribute of the value that it replaces, and look for parts of its file
 * that were never written. One stat shows that the file is as it was published: a change of
 * its content, its attribute or its name changes its times. (That is the test by which
 * recent.c knows that a value in memory is current.) Since Linux 6.13 no two changes have the
 * same time if the first one was looked at; before, those of one tick of some milliseconds
 * have. What another program does to the attribute in the very tick of the publication is not
 * seen there: then the value counts as kvd's for one PUT more, whose date is not earlier.
 *
 * Keys that were new are not remembered, since most of them are written once.
 */

#include "fast_path.h"

#include <fcntl.h>
#include <stdlib.h>

#define KNOWN_KEYS 2048             /* a power of two */

struct KnownValue {
    long long offset;               /* of the key's lock, which is a hash of the key */
    unsigned long long published_us;    /* 0: there is none */
    long epoch;
    struct timespec changed;        /* ctime */
    off_t bytes;
    dev_t device;
    ino_t inode;
};

/* The place of a key; NULL if there is no memory. */
static struct KnownValue *
place_of(FastPath *self, long long offset)
{
    if (self->most_recent <= 0)
        return NULL;
    if (self->known == NULL)
        /* Not earlier: it would cost memory in workers that never use it. */
        self->known = calloc(KNOWN_KEYS, sizeof *self->known);
    return self->known == NULL ? NULL : &self->known[offset % KNOWN_KEYS];
}

/*
 * Remember a value that was just published in place of another one, and whose key is still
 * locked.
 */
void
remember_published(FastPath *self, int file, const Upload *upload)
{
    struct stat status;
    struct KnownValue *known = place_of(self, upload->offset);
    if (known == NULL)
        return;
    known->published_us = 0;
    /* A file system that keeps whole seconds may show the same times for two changes. */
    if (fstat(file, &status) < 0 || status.st_size != upload->length
        || status.st_ctim.tv_nsec == 0)
        return;
    known->offset = upload->offset;
    known->published_us = upload->sealed_us;
    known->epoch = upload->sealed_epoch;
    known->changed = status.st_ctim;
    known->bytes = status.st_size;
    known->device = status.st_dev;
    known->inode = status.st_ino;
}

/* Whether a key has what this process has published under it last, which is `present`
   then. */
int
find_published(FastPath *self, int folder, const char *name, const Upload *upload,
               Present *present)
{
    struct stat status;
    struct KnownValue *known = place_of(self, upload->offset);
    if (known == NULL || known->published_us == 0 || known->offset != upload->offset)
        return 0;
    if (fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) < 0
        || status.st_ino != known->inode || status.st_dev != known->device
        || status.st_size != known->bytes || status.st_ctim.tv_sec != known->changed.tv_sec
        || status.st_ctim.tv_nsec != known->changed.tv_nsec) {
        known->published_us = 0;
        return 0;
    }
    *present = (Present){
        .exists = 1, .bytes = (unsigned long long)known->bytes,
        .earliest_us = known->published_us, .epoch = known->epoch,
    };
    return 1;
}

void
forget_published(FastPath *self)
{
    free(self->known);
    self->known = NULL;
}
