#!/bin/bash
# Compiles what kvd has in C with AddressSanitizer and UndefinedBehaviorSanitizer, in
# build/sanitized, for sanitize.sh. This needs only setuptools: it is done while all else
# is being installed.
set -euo pipefail
cd "$(dirname "$0")/../.."

root=$PWD
copy=build/sanitized
rm -rf "$copy"
mkdir -p "$copy"
cp -r kvd twisted pyproject.toml README.rst LICENSE "$copy"
cd "$copy"
# Those without sanitizers.
rm -f kvd/native/*.so

"$root/.venv/bin/python" -W ignore "$root/tests/native/build.py" \
    -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -O1 -g
for module in kvd/native/*.so; do
    grep -q __asan_init "$module" && grep -q __ubsan_handle "$module" \
        || { echo "$module has no sanitizers" >&2; exit 1; }
done
