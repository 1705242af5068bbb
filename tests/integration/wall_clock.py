"""
A time of day that a test sets, for the processes that it starts.

The machine's own clock is nobody's to set, and time namespaces do not move it. So a
small library, which the test compiles and the dynamic linker loads before all others,
adds what a shared file says to whatever is read of the time of day. The monotonic
clock stays as it is.
"""

from __future__ import annotations

import mmap
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_SHIM: Final = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static const volatile long *ahead;

__attribute__((constructor)) static void look(void)
{
	const char *path = getenv("KVD_TEST_CLOCK");
	int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *memory = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);

	if (memory == MAP_FAILED)
		abort();
	ahead = memory;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
	static int (*real)(clockid_t, struct timespec *);
	int result;

	if (!real)
		real = dlsym(RTLD_NEXT, "clock_gettime");
	result = real(clock, time);
	if (!result && ahead && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		time->tv_sec += *ahead;
	return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
	struct timespec now;

	(void)zone;
	clock_gettime(CLOCK_REALTIME, &now);
	time->tv_sec = now.tv_sec;
	time->tv_usec = now.tv_nsec / 1000;
	return 0;
}

time_t time(time_t *at)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (at)
		*at = now.tv_sec;
	return now.tv_sec;
}
"""


class WallClock:
    """
    The time of day of all processes with its environment; one after another, tests may
    use the same.
    """

    def __init__(self, folder: Path) -> None:
        """
        Args:
            folder: For its library.
        """
        source, library = folder / "clock.c", folder / "clock.so"
        source.write_text(_SHIM)
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"],
            check=True,
        )
        place = folder / "ahead"
        place.write_bytes(bytes(8))
        with place.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 8)
        self.environment: Mapping[str, str] = {
            **os.environ,
            "LD_PRELOAD": str(library),
            "KVD_TEST_CLOCK": str(place),
        }

    def step(self, seconds: int) -> None:
        """
        Set it, so far from where it is.
        """
        ahead = int.from_bytes(self._memory[:], "little", signed=True) + seconds
        self._memory[:] = ahead.to_bytes(8, "little", signed=True)

    def reset(self) -> None:
        """
        Set it to the machine's.
        """
        self._memory[:] = bytes(8)
