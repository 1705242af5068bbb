/*
 * Creates files as kvd does values of 4 KiB, and removes as many others, and tells what
 * processor time each takes: what the file system itself needs where a store evicts.
 *
 *     remove FOLDER COUNT
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

enum { FOLDERS = 256, BYTES = 4096, ATTRIBUTE_BYTES = 60 };

static double
processor_us(void)
{
	struct timespec spent;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
	return (double)spent.tv_sec * 1e6 + (double)spent.tv_nsec / 1e3;
}

static void
name(char *path, size_t size, int number)
{
	snprintf(path, size, "%02x/k%d", number % FOLDERS, number);
}

static void
create(int root, int number)
{
	static const char body[BYTES], attribute[ATTRIBUTE_BYTES];
	const struct timespec times[2] = {{1, 0}, {1, 0}};
	char path[64], upload[64];
	snprintf(upload, sizeof upload, "uploads/%d", number);
	name(path, sizeof path, number);
	int file = openat(root, upload, O_CREAT | O_EXCL | O_WRONLY, 0644);
	if (file < 0 || write(file, body, sizeof body) != BYTES
	    || futimens(file, times) < 0
	    || fsetxattr(file, "user.kvd", attribute, sizeof attribute, 0) < 0
	    || renameat2(root, upload, root, path, RENAME_NOREPLACE) < 0)
		err(1, "%s", path);
	close(file);
}

int
main(int count, char **arguments)
{
	char path[64];
	if (count != 3)
		errx(2, "usage: remove FOLDER COUNT");
	int root = open(arguments[1], O_RDONLY | O_DIRECTORY);
	int files = atoi(arguments[2]);
	if (root < 0 || mkdirat(root, "uploads", 0755) < 0)
		err(1, "%s", arguments[1]);
	for (int i = 0; i < FOLDERS; i++) {
		snprintf(path, sizeof path, "%02x", i);
		if (mkdirat(root, path, 0755) < 0)
			err(1, "%s", path);
	}
	double began = processor_us();
	for (int i = 0; i < files; i++)
		create(root, i);
	double created = processor_us();
	for (int i = 0; i < files; i++) {
		name(path, sizeof path, i);
		if (unlinkat(root, path, 0) < 0)
			err(1, "%s", path);
	}
	double removed = processor_us();
	printf("{\"create_us\": %.2f, \"remove_us\": %.2f}\n", (created - began) / files,
	       (removed - created) / files);
	return 0;
}
