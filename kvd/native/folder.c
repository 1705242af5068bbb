/*
 * Open folders, and what they confer on files that are created in them, as
 * kvd.store.conferring says.
 */

#include "fast_path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

/* From Linux 5.6, newer than many headers. The number is the same except on alpha. */
#define SYS_OPENAT2 437

static const char LIST_NAME[] = "system.posix_acl_default";

static void
close_folder(Folder *folder)
{
    if (folder->name[0])
        close(folder->descriptor);
    folder->name[0] = 0;
}

/*
 * Returns 0; -1 if it cannot be said.
 */
int
find_conferred(int folder, const struct stat *status, Conferred *found)
{
    found->group = status->st_mode & S_ISGID ? (long long)status->st_gid : -1;
    found->list_bytes = fgetxattr(folder, LIST_NAME, found->list, LIST_BYTES);
    if (found->list_bytes >= 0)
        return 0;
    found->list_bytes = 0;
    return errno == ENODATA || errno == EOPNOTSUPP ? 0 : -1;
}

/*
 * Whether a file is the same wherever of two folders it is created.
 */
int
is_conferred_alike(const Conferred *one, int folder, const struct stat *status)
{
    Conferred other;
    return find_conferred(folder, status, &other) == 0
        && one->group == other.group && one->list_bytes == other.list_bytes
        && memcmp(one->list, other.list, (size_t)one->list_bytes) == 0;
}

void
close_folders(FastPath *self)
{
    for (int i = 0; i < FOLDERS; i++)
        close_folder(&self->folders[i]);
}

/*
 * Open what a path from the root leads to, through folders, not through links to any.
 */
int
open_beneath(int root, const char *path, int flags)
{
    /* struct open_how; it is to stay BENEATH the root and to follow NO_SYMLINKS. */
    struct {
        uint64_t flags, mode, resolve;
    } how = {(uint64_t)(flags | O_CLOEXEC), 0, 0x08 | 0x04};
    return (int)syscall(SYS_OPENAT2, root, path, &how, sizeof how);
}

/*
 * Open the folder at the end of a path from the root.
 *
 * The last ones that lie in the root itself are kept open: to see that a name still
 * is the same folder's takes less than to open and close it.
 *
 * Returns a descriptor, and its status; -1 for none. The caller closes one that is not
 * kept.
 */
int
open_folder(FastPath *self, const char *path, int *is_kept, struct stat *status)
{
    size_t size = strlen(path);
    Folder *kept = NULL;
    if (size < sizeof kept->name && strchr(path, '/') == NULL) {
        unsigned char sum = 0;
        for (size_t i = 0; i < size; i++)
            sum = (unsigned char)(31 * sum + (unsigned char)path[i]);
        kept = &self->folders[sum % FOLDERS];
        if (kept->name[0] && strcmp(kept->name, path) == 0) {
            *is_kept = 1;
            if (fstatat(self->root, path, status, AT_SYMLINK_NOFOLLOW) == 0
                && status->st_ino == kept->inode && status->st_dev == kept->device)
                return kept->descriptor;
        }
    }
    *is_kept = 0;
    int folder = open_beneath(self->root, path, O_RDONLY | O_DIRECTORY);
    if (folder >= 0 && fstat(folder, status) < 0) {
        close(folder);
        return -1;
    }
    if (folder >= 0 && kept != NULL) {
        close_folder(kept);
        memcpy(kept->name, path, size + 1);
        kept->descriptor = folder;
        kept->inode = status->st_ino;
        kept->device = status->st_dev;
        *is_kept = 1;
    }
    return folder;
}
