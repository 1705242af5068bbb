/*
 * Makes every sync take SLOW_SYNC_MS milliseconds longer, to see what a slower
 * disk would mean: LD_PRELOAD=slow_sync.so SLOW_SYNC_MS=5 twistd -n kvd
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static void delay(void)
{
	const char *text = getenv("SLOW_SYNC_MS");
	long long nanoseconds = text ? (long long)(atof(text) * 1e6) : 0;
	struct timespec rest = {
		.tv_sec = nanoseconds / 1000000000,
		.tv_nsec = nanoseconds % 1000000000,
	};

	while (nanosleep(&rest, &rest))
		;
}

/* Define a function that sleeps and then does what it did before. */
#define SLOW(name)                                                \
	int name(int descriptor)                                  \
	{                                                         \
		int (*original)(int) = dlsym(RTLD_NEXT, #name);   \
		delay();                                          \
		return original(descriptor);                      \
	}

SLOW(fsync)
SLOW(fdatasync)
SLOW(syncfs)
