#!/bin/bash
# Runs the tests of what is compiled with AddressSanitizer and UndefinedBehaviorSanitizer,
# in the copy of the sources that sanitized.sh builds with them in build/sanitized: now, if
# what is compiled has changed since. Any report ends the run.
#
# Python itself is not built with them, so their library is loaded before it. It gets each
# object from malloc (PYTHONMALLOC), where an access beyond it is noticed. What is left at
# the end is not looked at, since that is much of Python; what grows is found by
# tests of leaks, which are no different here and are left out, as are those of Python alone.
set -euo pipefail
cd "$(dirname "$0")/../.."

# Built by make, which knows when it must be.
env -u MAKEFLAGS make --no-print-directory .venv/sanitized >&2
python=$PWD/.venv/bin/python
copy=build/sanitized
# What has been compiled stays; all else is as it is now.
find "$copy" -type f ! -name "*.so" ! -path "*/build/*" -delete
# With the bytecode of the tests, but not what other checks are writing meanwhile.
"$python" - "$copy" <<'END'
import shutil, sys
left = shutil.ignore_patterns("*.so", "*.pyc.*", "dropin.cache")
for folder in "kvd", "tests", "twisted":
    shutil.copytree(
        folder, f"{sys.argv[1]}/{folder}", ignore=left, dirs_exist_ok=True
    )
for file in "pyproject.toml", "README.rst", "LICENSE":
    shutil.copy(file, sys.argv[1])
END
cd "$copy"

export LD_PRELOAD
LD_PRELOAD=$(gcc -print-file-name=libasan.so)
export PYTHONMALLOC=malloc
# A report says where an object was made by the nearest callers: to keep more of them for
# each object takes a tenth of the time.
export ASAN_OPTIONS=detect_leaks=0:malloc_context_size=6
export UBSAN_OPTIONS=print_stacktrace=1
# Of all chance, as in the Makefile.
export SEED=${SEED:-$RANDOM}
echo "SEED=$SEED"
# Not "fd": a report is written to standard error as the process ends.
exec "$python" -m pytest --capture=sys --quiet --hypothesis-seed="$SEED" \
    --ignore-glob='*/test_leaks.py' -k 'not Fallback and not Python and not LeakTests' "$@"
