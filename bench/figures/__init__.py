"""
The figures that kvd promises of itself, measured on this machine.

    python -m bench.figures [NAME]...

=========  ====================================================================
name       what is measured
=========  ====================================================================
memory     growth of a worker under 256 concurrent uploads of 40 MB, and
           under 64 of them with 64 slow downloads
idle       resident memory of an idle connection after one request
stored     cost of a GET with a million stored keys, and with a thousand
listing    a stream and pages of a million keys, and small GETs meanwhile
start      32 workers, from the command until all are ready
get        a small GET, and nginx's in the same run (nginx and wrk)
hostile    GETs of a normal client while 20 clients of each kind attack
evicting   a store with a limit that evicts, beside one without
engine     PUT and GET of 40 MB through kvd and at the gateway of an engine, and
           the memory of a worker whose clients stop (``ENGINE=seaweedfs_etcd``,
           ``ceph`` or ``swift``: another engine than SeaweedFS whose nodes have
           databases of their own; so below)
relays     the same beside HAProxy and a C program that only splices, with the
           processor time of each program; ``ROUNDS`` says how often
small      GET of 4 KiB through kvd, of a near cache and of a folder
sync       ``kvd sync`` to an engine and back, interrupted
=========  ====================================================================

Everything runs on loopback and in temporary folders (below ``TMPDIR``), for a bounded
time. The two with a million keys need about 15 s for each folder of keys.
"""
