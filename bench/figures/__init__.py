"""
The figures that kvd promises of itself, measured on this machine.

    python -m bench.figures [NAME]...

=========  ====================================================================
name       what is measured
=========  ====================================================================
memory     how much a worker grows under 256 uploads of 40 MB at once, and
           under 64 of them beside 64 slow downloads
idle       resident memory of a connection that waits after one request
stored     cost of a GET beside a million stored keys, against a thousand
listing    a stream and pages of a million keys, and small GETs meanwhile
start      32 workers, from the command to the last one's readiness
get        a small GET, beside nginx's in the same run (nginx and wrk)
=========  ====================================================================

Everything runs on loopback and in temporary folders (``TMPDIR`` says where), for a
bounded time. The two with a million keys need some 15 s for each folder of them.
"""
