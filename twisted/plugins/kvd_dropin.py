"""
What kvd declares to Twisted's plugin system: declarations only.
"""

from twisted.application.service import ServiceMaker

from kvd.plugins import Dialect, Policy, Store

kvd = ServiceMaker(
    "kvd",
    "kvd.daemon.service",
    "An HTTP daemon that keeps values under keys, over N processes.",
    "kvd",
)

shared = Policy(
    "shared",
    "One listening socket for all workers; the first to wake takes the connection.",
    "kvd.dispatch.policies.shared.policy",
)
reuseport = Policy(
    "reuseport",
    "One SO_REUSEPORT socket for each worker; the kernel's hash chooses.",
    "kvd.dispatch.policies.reuseport.policy",
)
roundrobin = Policy(
    "roundrobin",
    "The supervisor dispatches connections to the workers in turn.",
    "kvd.dispatch.policies.roundrobin.policy",
)
gated = Policy(
    "gated",
    "One listening socket for all workers; a busier one leaves connections to others.",
    "kvd.dispatch.policies.gated.policy",
)
steered = Policy(
    "steered",
    "A socket for each worker; a program in the kernel chooses: by=random, by=cpu,"
    " weights=2/1/1; with CAP_BPF also by=turns, by=least.",
    "kvd.dispatch.policies.steered.policy",
)
leastbusy = Policy(
    "leastbusy",
    "The supervisor accepts; the worker with the fewest requests gets the connection.",
    "kvd.dispatch.policies.leastbusy.policy",
)

file_store = Store(
    "file",
    "Values are files below a folder: file:./values",
    "kvd.store.file_maker.maker",
)
null_store = Store(
    "null",
    "Values are written to /dev/null and forgotten, for measuring: null:",
    "kvd.store.null.maker",
)
sleep_store = Store(
    "sleep",
    "Values are forgotten, and each PUT keeps its worker for a time, for measuring"
    " policies: sleep:10ms",
    "kvd.store.sleep.maker",
)
s3_store = Store(
    "s3",
    "Values are objects of a distributed engine:"
    " s3://bucket/prefix?endpoint=https://one,https://two",
    "kvd.s3.maker.maker",
)

plain = Dialect(
    "plain",
    "HTTP as RFC 9110 has it; the default.",
    "kvd.http.dialects.plain.dialect",
)
classic = Dialect(
    "classic",
    "The replies of the 2017 file server that kvd descends from.",
    "kvd.http.dialects.classic.dialect",
)
webdav = Dialect(
    "webdav",
    "WebDAV with locks, for rclone, davfs2, cadaver, sccache and file managers.",
    "kvd.http.dialects.webdav.dialect.dialect",
)
nx = Dialect(
    "nx",
    "The remote cache of Nx.",
    "kvd.http.dialects.nx.dialect",
)
turborepo = Dialect(
    "turborepo",
    "The remote cache of Turborepo, with a folder for each team.",
    "kvd.http.dialects.turborepo.dialect",
)
restic = Dialect(
    "restic",
    "The REST backend of restic, versions 1 and 2.",
    "kvd.http.dialects.restic.dialect",
)
restic_append_only = Dialect(
    "restic-append-only",
    "Like restic; nothing but locks can be removed.",
    "kvd.http.dialects.restic.append_only",
)
terraform = Dialect(
    "terraform",
    "The http backend of Terraform and OpenTofu, with locks.",
    "kvd.http.dialects.terraform.dialect",
)
s3 = Dialect(
    "s3",
    "A subset of S3, for boto3, aws-cli, rclone, s3cmd and DuckDB.",
    "kvd.http.dialects.s3.dialect.dialect",
)
git_lfs = Dialect(
    "git-lfs",
    "Large files of git: the batch API and the basic transfer.",
    "kvd.http.dialects.git_lfs.dialect",
)
