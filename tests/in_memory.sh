#!/bin/sh
# tests/in_memory.sh COMMAND [ARGUMENT...]: runs a command whose temporary files are in
# memory, if a gigabyte is free there and files can have extended attributes (tmpfs has
# those of users since Linux 6.6). They are removed at its end.
folder="$(mktemp -d /dev/shm/kvd.XXXX 2>/dev/null)" || exec "$@"
# As /tmp is: some tests become other users.
chmod 1777 "$folder"
trap 'rm -rf "$folder"' EXIT
free="$(df --output=avail --block-size=1M "$folder" | tail -n 1)"
keep='import os, sys; os.setxattr(sys.argv[1], "user.kvd", b"kept")'
if [ "$free" -ge 1024 ] && "${PYTHON:-python3}" -c "$keep" "$folder" 2>/dev/null; then
	export TMPDIR="$folder"
fi
"$@"
