#!/bin/bash
# What the tests need of the system. "make test" runs this first.
#
# As root on Debian this installs what is missing. Elsewhere it names the command that
# would, and fails. This is the only list: a test that needs one more program brings a
# line in needed(). "make test-engines" gives the names of engines, which are needed too,
# "make test-proxies" gives proxies, and "make alerts" alerts; "make test-clients" gives
# clients, and names some of them in CLIENTS or means all.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
[[ -x .venv/bin/python ]] && python=.venv/bin/python

named=" $* "

# Prints the Debian package of everything that is missing.
needed() {
    if [[ $named == *" ceph "* ]]; then
        for program in ceph-mon ceph-mgr ceph-osd radosgw; do
            command -v "$program" >/dev/null || echo "$program"
        done
        command -v ceph >/dev/null || echo ceph-common
    fi
    if [[ $named == *" swift "* ]]; then
        command -v memcached >/dev/null || echo memcached
    fi
    if [[ $named == *" cluster "* ]]; then
        command -v ip >/dev/null || echo iproute2
        PATH="$PATH:/usr/sbin" command -v sysctl >/dev/null || echo procps
        command -v etcdctl >/dev/null || echo etcd-client
    fi
    if [[ $named == *" cluster "* || $named == *" proxies "* ]]; then
        PATH="$PATH:/usr/sbin" command -v haproxy >/dev/null || echo haproxy
    fi
    if [[ $named == *" proxies "* ]]; then
        command -v caddy >/dev/null || echo caddy
    fi
    if [[ $named == *" alerts "* ]]; then
        command -v promtool >/dev/null || echo prometheus
    fi
    if [[ $named == *" clients "* ]]; then
        # shellcheck disable=SC2086
        "$python" -m tests.clients.missing ${CLIENTS:-} || exit
    fi
    command -v make >/dev/null || echo make
    command -v curl >/dev/null || echo curl  # the examples of the docs
    command -v mount >/dev/null || echo mount  # tests of a full disk
    # Tests of power cuts.
    PATH="$PATH:/usr/sbin" command -v mkfs.ext4 >/dev/null || echo e2fsprogs
    PATH="$PATH:/usr/sbin" command -v mkfs.xfs >/dev/null || echo xfsprogs
    # A file system that renames what is removed while it is open.
    command -v bindfs >/dev/null || echo bindfs
    # What kvd compiles, and the benchmark's baselines and load.
    command -v gcc >/dev/null || echo gcc
    echo '#include <stdio.h>' | gcc -E - >/dev/null 2>&1 || echo libc6-dev
    command -v etcd >/dev/null || echo etcd-server  # three nodes of SeaweedFS
    command -v chromium >/dev/null || echo chromium  # the status page
    # Only a program of it is used: whether the units in etc/ can be understood.
    command -v systemd-analyze >/dev/null || echo systemd
    PATH="$PATH:/usr/sbin" command -v nginx >/dev/null || echo nginx
    command -v ccache >/dev/null || echo ccache  # a client of the benchmark
    command -v wget >/dev/null || echo wget  # as curl
    command -v litmus >/dev/null || echo litmus  # a client of WebDAV
    command -v rsync >/dev/null || echo rsync  # what keeps the attributes of values
    command -v "$python" >/dev/null || echo python3
    "$python" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    "$python" -c '
import os, sys, sysconfig
header = os.path.join(sysconfig.get_path("include"), "Python.h")
sys.exit(not os.path.exists(header))' 2>/dev/null || echo python3-dev
}

missing_text=$(needed)
mapfile -t missing < <(printf %s "$missing_text")
((${#missing[@]})) || exit 0

if ! command -v apt-get >/dev/null; then
    echo "The tests need what is not installed here: ${missing[*]}" >&2
    echo "These are the names of Debian's packages: install what contains the same." >&2
    exit 1
fi

install="apt-get install --yes --no-install-recommends ca-certificates ${missing[*]}"
if [[ $(id -u) != 0 ]]; then
    echo "The tests need what is not installed, and only root may install it:" >&2
    echo "${missing[*]}" >&2
    echo "This command installs it:" >&2
    echo "    sudo sh -c 'apt-get update && $install'" >&2
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
# A runlevel that starts nothing: the tests start an nginx of their own.
export RUNLEVEL=1
echo "Installing what the tests need: ${missing[*]}"
apt-get update -qq
$install -qq
# Without a compiler, parts of kvd were left out.
rm -f .venv/served .venv/native .venv/sanitized

mapfile -t missing < <(needed)
if ((${#missing[@]})); then
    echo "Installed, but still not found: ${missing[*]}" >&2
    echo "A Python that is not Debian's ($python) needs a venv module and headers of" \
        "its own." >&2
    exit 1
fi
