"""
Tests for `kvd.http.fast_path`: whatever clients and others do, it comes to the same
with the fast path and without.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, pairwise
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvd.settings import Bounds, Durability, Quota
from kvd.store import attribute
from tests.exploring import TIMES, exploring
from tests.http.fast_path.both import LAST_TAG, Outcome, Worker
from tests.http.fast_path.cases import get, head, put
from tests.http.fast_path.replaying import Replays

Step: TypeAlias = Callable[[Worker], None]

KEYS = st.sampled_from([
    "k", "k", "k", "a/b", "a/b", "a/c", "a", "deep/er/k", "k.", "~", "-k", "*",
    "folder", "foreign", "k/below", "?limit=9", "a/?limit=9", "k?x=y", "%6b", "a%2fb",
    "a/", "a//b", "..", "a/./b", "./k", ".kvd/lock", ".k", "#", "k\xe9",
    "x" * 255, "y" * 256, "a/" * 30 + "k", "n/e/w", "n/e/w", "n/e/x", "n/y", "n",
])  # fmt: skip
METHODS = st.sampled_from(
    ["GET"] * 6 + ["PUT"] * 8 + ["HEAD", "DELETE", "DELETE", "OPTIONS", "POST", "NONE"]
)
FIELDS: st.SearchStrategy[list[bytes]] = st.lists(
    st.sampled_from(
        [
            *[b"Connection: close", b"Connection: keep-alive", b"connection: Close"],
            *[
                b"User-Agent: one",
                b"User-Agent: two",
                b"Referer: \xff",
                b"Content-Type: text/plain",
            ],
            *[b"Content-Encoding: br", b"Range: bytes=1-2", b"Range: bytes=9-"],
            *[b"If-Match: *", b"If-None-Match: *", b'If-Match: "none"'],
            *[b"If-Modified-Since: Thu, 01 Jan 2099 00:00:00 GMT"],
            *[b"Expect: 100-continue", b"Expect: none", b"Content-Range: bytes 0-1/2"],
            *[b"Content-Length: 3", b"Host: second", b"folded: a\r\n b", b"no colon"],
            *[b"blank : x", b"Transfer-Encoding: chunked", b"X: " + b"x" * 1100],
            *[b"Content-Type: " + b"\xff" * 600, b"Upgrade: h2c", b"Content-Type: \t"],
            *[b"Content-Language: de", b"Cache-Control: max-age=9", b"Expires: 0"],
            *[b"Content-Disposition: inline; filename=\xff", b"Destination: /k"],
            *[b"Content-Encoding: aws-chunked", b"x-amz-copy-source: /b/k"],
            *[b"Content-MD5: x", b"Content-MD5: 1B2M2Y8AsgTpgAmY7PhCfg=="],
            b"Content-Digest: sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:",
            *[b"Repr-Digest: crc32c=:AAAA:", b"Repr-Digest: sha-256=:AAAA:"],
        ]
    ),
    max_size=1,
) | st.just([])
BODIES = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([b"", b"GET /k HTTP/1.1\r\n\r\n", b"b" * 69_999, b"c" * 70_001]),
    # Around what one read takes of a request.
    st.builds(lambda size: b"d" * size, st.integers(65_300, 65_600)),
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """
    A request as a client might send it, mostly a good one.
    """
    method, key, fields = draw(METHODS), draw(KEYS), draw(FIELDS)
    minor = draw(st.sampled_from([1, 1, 1, 0, 2]))
    host = draw(
        st.sampled_from([b"kvd"] * 9 + [b"kvd:80", b"[::1]", b"a:b", b"", b"evil"])
    )
    body = draw(BODIES) if method in ("PUT", "POST") else b""
    lines = [
        f"{method} /{key} HTTP/1.{minor}".encode("latin-1"),
        b"Host: " + host,
        *fields,
    ]
    if body or method == "PUT":
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", b""]) + body


# What `place` and `touch` make the date of a file, and the second before.
DATES = [b"Sun, 09 Sep 2001 01:46:40 GMT", b"Sun, 09 Sep 2001 01:46:39 GMT"]
TAG_LISTS = st.sampled_from([
    *[LAST_TAG, LAST_TAG, b"W/" + LAST_TAG, b'"none", ' + LAST_TAG, b'"none"', b"*"],
    *[LAST_TAG + b" , W/" + LAST_TAG, b'"' + b"a" * 32 + b'"', b"none", b"", b'"none'],
])  # fmt: skip
SINCE = st.sampled_from([
    *DATES, *DATES, b"Thu, 01 Jan 2099 00:00:00 GMT", b"Thu, 01 Jan 1970 00:00:00 GMT",
    b"Sunday, 09-Sep-01 01:46:40 GMT", b"Sun, 31 Feb 2001 01:46:40 GMT", b"never", b"",
])  # fmt: skip
PLACES = st.sampled_from([
    *[b"", b"0", b"1", b"2", b"4", b"5", b"6", b"007", b"9" * 25, b"x"],
    *[b"4095", b"16383", b"65535", b"70000", b"720900", b"1048576", b"2499999"],
])  # fmt: skip
BYTE_RANGES = st.one_of(
    st.builds(lambda first, last: b"bytes=%b-%b" % (first, last), PLACES, PLACES),
    st.sampled_from(
        [b"bytes=0-0,2-2", b"bytes= 1-2 ", b"Bytes=1-2", b"pages=1-2", b""]
    ),
)
ASKED = st.one_of(
    st.tuples(st.just(b"Range: "), BYTE_RANGES),
    st.tuples(st.sampled_from([b"If-None-Match:", b"if-match: "]), TAG_LISTS),
    st.tuples(
        st.sampled_from([b"If-Modified-Since: ", b"If-Unmodified-Since:\t"]), SINCE
    ),
    st.tuples(st.just(b"If-Range: "), TAG_LISTS | SINCE),
).map(b"".join)
QUESTIONS = st.lists(ASKED, min_size=1, max_size=3).map(
    lambda lines: b"".join(line + b"\r\n" for line in lines)
)

# Those that the fast path may serve, again and again.
PLAIN = st.builds(
    lambda method, key, body, fields, questions: (
        put(key, body, fields) if method is put else method(key, fields + questions)
    ),
    st.sampled_from([get, get, get, put, put, put, head]),
    st.sampled_from(
        [
            "k",
            "k",
            "a/b",
            "a/c",
            "foreign",
            "none",
            "a/b/none",
            "a:none",
            "n/e/w",
            "n/y",
        ]
    ),
    st.sampled_from([b"value", b"other", b"", b"v", b"b" * 300, b"long" * 17_000]),
    st.sampled_from([b"", b"", b"", b"Connection: close\r\n"]),
    st.just(b"") | QUESTIONS,
)

CLOSE = b"Connection: close\r\n"
ONLY = st.sampled_from([get("k", CLOSE), get("a/b", CLOSE), put("k", b"other", CLOSE)])


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """
    A few requests, in pieces or in one.
    """
    data = b"".join(draw(st.lists(PLAIN | requests(), min_size=1, max_size=3)))
    ends = draw(st.lists(st.integers(0, len(data)), max_size=2))
    cuts = [0, *sorted(ends), len(data)]
    return [data[a:b] for a, b in pairwise(cuts) if a < b]


EXPECT = b"Expect: 100-continue\r\n"

# Less than the time of a body, as long, and longer.
PAUSES = st.sampled_from([0, 0, 0, 0, 0, 0.5, 1, 59, 60, 61])


@st.composite
def bodies_in_pieces(draw: st.DrawFn) -> list[tuple[float, bytes]]:
    """
    A PUT whose body comes later than its head, often at once, else in pieces; now and
    then not all of it, or more than it. Each piece comes after a while.
    """
    key = draw(st.sampled_from(["k", "k", "a/b", "a/b", "n/e/w", "k/below", "folder"]))
    fields = draw(st.sampled_from([b"", b"", b"", b"Connection: close\r\n", EXPECT]))
    body = draw(st.binary(min_size=1, max_size=12) | BODIES)
    whole = put(key, body, fields)
    head = len(whole) - len(body)
    ends = [head, *draw(st.lists(st.integers(head, len(whole)), max_size=3))]
    behind = draw(st.sampled_from([b"", b"", b"", get("k"), put("k", b"v")[:-1]]))
    last = draw(st.sampled_from([len(whole) + len(behind)] * 2 + [len(whole) - 1]))
    cuts = [0, *sorted(ends), last]
    pieces = [(whole + behind)[a:b] for a, b in pairwise(cuts) if a < b]
    return [(draw(PAUSES), piece) for piece in pieces]


def send(number: int, pieces: Sequence[bytes], reads: bool, worker: Worker) -> None:
    """
    A client sends, and may read what comes. Over TLS it does: how many requests are
    answered ahead of one that does not depends on how much the kernel takes for it,
    which is less in small records; and what others do meanwhile may change the replies.
    """
    for piece in pieces:
        worker.send(number, piece, reads=reads or worker.secure)


def trickle(
    number: int, pieces: Sequence[tuple[float, bytes]], reads: bool, worker: Worker
) -> None:
    """
    A client sends, and takes its time. It reads as in `send`.
    """
    for seconds, piece in pieces:
        if seconds:
            worker.wait(seconds)
        worker.send(number, piece, reads=reads or worker.secure)


def connect(request: bytes, room: int | None, worker: Worker) -> None:
    """
    Somebody connects, and may have said something when he is accepted.
    """
    worker.connect(request, room)


def half_close(number: int, worker: Worker) -> None:
    """
    A client sends no more.
    """
    worker.half_close(number)


def leave(number: int, worker: Worker) -> None:
    """
    A client is gone.
    """
    worker.leave(number)


def wait(seconds: float, worker: Worker) -> None:
    """
    Time passes.
    """
    worker.wait(seconds)


def meddle(act: Callable[[str], None], name: str, worker: Worker) -> None:
    """
    Somebody else does something with a file of the store, if it is there.
    """
    try:
        act(worker.path(name))
    except OSError:
        # It is not, or something is in his way: on both sides the same.
        pass


def place(said: bytes | None, path: str) -> None:
    """
    A file of his own, which may say that it is kvd's.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(b"abc")
    os.utime(path, ns=(10**18, 10**18))
    if said is not None:
        os.setxattr(path, attribute.NAME, said)


def place_whole(size: int, path: str) -> None:
    """
    A value of kvd's, as an archive brings it.
    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if os.path.lexists(path):
        # Who reads it has it still.
        os.unlink(path)
    with open(path, "wb") as file:
        file.write(bytes(range(251)) * (size // 251) + b"x" * (size % 251))
    os.setxattr(path, attribute.NAME, NEW + b" %d" % size + DATE)
    os.utime(path, ns=(10**18, 10**18))


def take_away(path: str) -> None:
    """
    A file, or a folder with all that is in it.
    """
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)


def move_away(path: str) -> None:
    """
    It has another name then.
    """
    os.rename(path, path + "-moved")


def put_a_link(path: str) -> None:
    """
    To what was there.
    """
    move_away(path)
    os.symlink(os.path.basename(path) + "-moved", path)


def put_a_folder(path: str) -> None:
    """
    In place of what was there.
    """
    if os.path.lexists(path):
        move_away(path)
    os.mkdir(path)


def touch(path: str) -> None:
    """
    It is older then.
    """
    os.utime(path, ns=(10**18, 10**18))


def shorten(path: str) -> None:
    """
    As a power cut might.
    """
    os.truncate(path, os.path.getsize(path) // 2)


OLD = b"1 " + b"a" * 32
NEW = b"2 " + b"a" * 32
# What `place` and `touch` make the date of a file.
DATE = b" 1000000000.000000\n"
# Around those where a value is kept in memory no more, is sent from its file, gets a
# small send buffer, and is sent in several turns.
SIZES = [
    *[0, 1, 16_384, 16_385, 65_536, 65_537, 300_000],
    *[720_895, 720_896, 1_048_576, 1_048_577, 2_500_000],
]
MEDDLING = st.sampled_from(
    [
        *[take_away, move_away, put_a_link, put_a_folder, touch, shorten],
        *(
            partial(place, said)
            for said in (
                *(None, b"rubbish", OLD + b" 3\n", OLD + b" 4\n", OLD + b" 3\nx\n"),
                *(OLD + b" 3\ncontent-type: x\n", NEW + b" 3" + DATE),
                *(NEW + b" 4" + DATE, NEW + b" 3 1000000001.000000\n"),
                *(NEW + b" 3" + DATE + b"x\n", NEW + b" 3" + DATE + b"age: 1\n"),
                NEW + b" 3" + DATE + b"content-type: x\n",
                NEW + b" 3" + DATE + b"content-type: x\r\xff\n",
            )
        ),
        *(partial(place_whole, size) for size in SIZES),
    ]
)
NUMBERS = st.integers(0, 2)
NAMES = st.sampled_from(
    ["k", "a", "a/b", "a/c", "foreign", "folder", "n", "n/e", "n/e/w"]
)
READS = st.sampled_from([True, True, True, False])
ROOM = st.sampled_from([None, None, 1])


def step(act: Callable[..., None], *parts: st.SearchStrategy[Any]) -> Any:
    """
    Something that is done with both.
    """
    return st.builds(partial, st.just(act), *parts)


STEPS: st.SearchStrategy[Step] = st.one_of(
    *[step(send, NUMBERS, st.lists(PLAIN, min_size=1, max_size=8), READS)] * 4,
    *[step(send, NUMBERS, st.tuples(requests()), READS)] * 3,
    *[step(send, NUMBERS, streams(), READS)] * 3,
    *[step(trickle, NUMBERS, bodies_in_pieces(), READS)] * 4,
    step(connect, st.just(b"") | PLAIN | requests(), ROOM),
    step(connect, bodies_in_pieces().map(lambda pieces: pieces[0][1]), ROOM),
    *[step(connect, ONLY, ROOM)] * 2,
    step(half_close, NUMBERS),
    step(leave, NUMBERS),
    step(wait, st.sampled_from([0.5, 1, 60, 99])),
    *[step(meddle, MEDDLING, NAMES)] * 2,
)

# Of the store, and of a prefix; in blocks of 4 KiB. Small ones are soon full.
BOUNDS = st.sampled_from(
    [
        *[None, None, None],
        *(
            Bounds(
                (
                    Quota(b"", store * 4096, evicts, None),
                    Quota(b"a/", prefix * 4096, evicts, None),
                ),
                1,
            )
            for store, prefix, evicts in ((9, 2, False), (40, 20, False), (9, 2, True))
        ),
    ]
)

# So that there is something to fall out of.
KNOWN = [put("k", b"value"), put("a/b", b"value"), get("k"), get("a/b")]

EXAMPLES = 100


def take(worker: Worker, steps: Sequence[Step]) -> tuple[Outcome, list[Any]]:
    """
    Take steps with a worker, and end it.

    Returns:
        What came of it, and its counts behind each step.
    """
    try:
        worker.connect(b"")
        counts = []
        for step in steps:
            step(worker)
            counts.append(worker.counts())
        return worker.end(), counts
    finally:
        worker.clean_up()


# Hypothesis would rather not print bodies of this size, and hides the failure.
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@pytest.mark.explores
@pytest.mark.untraced
def test_both_ways_come_to_the_same() -> None:
    """
    Replies, files, the access log, the record, all counts and what the quotas hold.
    """
    served = served_over_tls = limited = idle = new = behind = 0
    replays = Replays("test_both_ways_come_to_the_same")

    @exploring(EXAMPLES)
    @given(
        st.lists(STEPS, min_size=5, max_size=30),
        st.sampled_from(["process", "process", "disk"]),
        st.booleans(),
        st.booleans(),
        st.sampled_from([False, False, True]),
        BOUNDS,
        st.booleans(),
    )
    def compare(
        steps: list[Step],
        durability: Durability,
        guarded: bool,
        reports: bool,
        secure: bool,
        bounds: Bounds | None,
        accepts: bool,
    ) -> None:
        nonlocal served, served_over_tls, limited, idle, new, behind
        outcomes = []
        for fast_path in (True, False):
            worker = Worker(
                fast_path=fast_path,
                durability=durability,
                guarded=guarded,
                reports=reports,
                secure=secure,
                bounds=bounds,
                accepts=accepts,
            )
            outcomes.append(take(worker, [partial(send, 0, KNOWN, True), *steps]))
            if worker.watched is not None:
                served += worker.watched.served
                served_over_tls += worker.watched.served * secure
                limited += worker.watched.served * (bounds is not None)
                idle += worker.watched.idle
                new += worker.watched.new
                behind += worker.watched.behind
        replays.same(
            outcomes, steps, durability, guarded, reports, secure, bounds, accepts
        )
        assert all(not counts.held for counts in outcomes[0][0].taken)

    if replays.run(compare):
        return
    compare()

    # Else nothing was compared.
    compared = EXAMPLES * TIMES
    assert compared // 10 < served
    assert compared // 20 < served_over_tls
    assert compared // 20 < limited
    assert compared // 10 < idle
    assert compared // 50 <= new
    assert compared // 50 <= behind


AHEAD = st.builds(
    lambda pieces, reads: [(piece.replace(CLOSE, b""), reads) for piece in pieces],
    st.lists(PLAIN, min_size=1, max_size=8),
    st.booleans(),
)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@pytest.mark.explores
@pytest.mark.untraced
def test_client_over_tls_that_reads_late() -> None:
    """
    In the end it has the same, however much of that was sent ahead.
    """
    served = 0
    replays = Replays("test_client_over_tls_that_reads_late")

    @exploring(EXAMPLES // 5)
    @given(st.lists(AHEAD, min_size=2, max_size=10))
    def compare(batches: list[list[tuple[bytes, bool]]]) -> None:
        nonlocal served
        outcomes: list[tuple[Outcome, list[Any]]] = []
        for fast_path in (True, False):
            worker = Worker(fast_path=fast_path, durability="process", secure=True)
            try:
                worker.connect(b"")
                for piece, reads in chain(*batches):
                    worker.send(0, piece, reads=reads)
                outcomes.append((worker.end(), []))
            finally:
                worker.clean_up()
            if worker.watched is not None:
                served += worker.watched.served
        replays.same(outcomes, batches)

    if replays.run(compare):
        return
    compare()

    assert EXAMPLES * TIMES // 5 < served, "else nothing was compared"


FRESH_SECONDS = 5.0

READ = st.builds(
    lambda make, key, questions: make(key, questions),
    st.sampled_from([get, get, get, head]),
    st.sampled_from(["k", "k", "a/b", "a/b", "a/c", "n/e/w", "foreign"]),
    st.just(b"") | QUESTIONS,
)


def meddle_with_cache(act: Callable[[str], None], worker: Worker) -> None:
    """
    Somebody does the same with all files of a near cache.
    """
    for folder, folders, names in os.walk(worker.cache):
        folders[:] = [name for name in folders if name != ".kvd"]
        for name in names:
            act(os.path.join(folder, name))


CACHE_STEPS: st.SearchStrategy[Step] = st.one_of(
    *[step(send, NUMBERS, st.lists(READ, min_size=1, max_size=4), READS)] * 8,
    *[step(send, NUMBERS, st.lists(PLAIN, min_size=1, max_size=4), READS)] * 2,
    step(send, NUMBERS, st.tuples(requests()), READS),
    step(send, NUMBERS, streams(), READS),
    step(trickle, NUMBERS, bodies_in_pieces(), READS),
    step(connect, READ, ROOM),
    step(half_close, NUMBERS),
    step(leave, NUMBERS),
    *[step(wait, st.sampled_from([0.5, 1, FRESH_SECONDS, 60]))] * 2,
    step(meddle, MEDDLING, NAMES),
    step(
        meddle_with_cache,
        st.sampled_from([take_away, touch, shorten, partial(place, None)]),
    ),
)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@pytest.mark.explores
@pytest.mark.untraced
def test_both_ways_through_a_near_cache_come_to_the_same() -> None:
    """
    Also where a value comes from.
    """
    served = 0
    replays = Replays("test_both_ways_through_a_near_cache_come_to_the_same")

    @exploring(EXAMPLES // 5)
    @given(st.lists(CACHE_STEPS, min_size=10, max_size=30), st.booleans())
    def compare(steps: list[Step], secure: bool) -> None:
        nonlocal served
        outcomes = []
        for fast_path in (True, False):
            worker = Worker(
                fast_path=fast_path,
                durability="process",
                secure=secure,
                fresh_seconds=FRESH_SECONDS,
            )
            outcomes.append(
                take(worker, [partial(send, 0, KNOWN + KNOWN[2:] * 2, True), *steps])
            )
            if worker.watched is not None:
                served += worker.watched.served
        replays.same(outcomes, steps, secure)

    if replays.run(compare):
        return
    compare()

    assert EXAMPLES * TIMES // 2 < served, "else nothing was compared"
