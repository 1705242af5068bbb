"""
Any bytes, cut anywhere, give events or a peer error.
"""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvd.errors import PeerError
from kvd.settings import Limits
from tests.exploring import exploring
from tests.http.wire.feeding import Seen, read

LIMITS = Limits(head_bytes=400, head_fields=5, target_bytes=60)

PIECES = [
    b"GET", b"PUT", b"BREW", b" ", b"/", b"k", b"%2F", b"*", b"http://h/k", b"#",
    b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b" HTTP/2.0\r\n", b"GET /k HTTP/1.1\r\n",
    b"PUT /k HTTP/1.1\r\nHost: h\r\n", b"Host: h\r\n", b"Content-Length: 3\r\n",
    b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close",
    b"Upgrade: x\r\n", b"Expect: 100-continue\r\n", b"\r\n", b"\r", b"\n", b"\r\n\r\n",
    b"3\r\nabc\r\n", b"0\r\n\r\n", b"0\r\n", b"A: b\r\n", b": ", b"\t", b"abc", b"\0",
    b"\xff", b"1;x=y\r\nz\r\n", b"a" * 70,
]  # fmt: skip

streams = st.one_of(
    st.binary(max_size=300),
    st.lists(st.sampled_from(PIECES), max_size=25).map(b"".join),
    st.lists(
        st.one_of(st.sampled_from(PIECES), st.binary(max_size=3)), max_size=25
    ).map(b"".join),
)


def comparable(seen: Seen) -> list[object]:
    """
    What was seen; of an error its kind, since its words may quote more or less.
    """
    return [type(e) if isinstance(e, PeerError) else e for e in seen]


@pytest.mark.untraced
@exploring(400)
@given(streams, st.lists(st.integers(0, 300), max_size=8))
def test_any_bytes_give_events_or_a_peer_error(data: bytes, cuts: list[int]) -> None:
    """
    The same ones, however the bytes are cut; anything else would be raised.
    """
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[a:b] for a, b in pairwise(places)]
    whole = comparable(read([data], LIMITS))

    assert whole == comparable(read(pieces, LIMITS))
    assert whole == comparable(
        read([data[i : i + 1] for i in range(len(data))], LIMITS)
    )


def test_a_long_line_is_refused_alike_however_it_is_cut() -> None:
    """
    Whatever else is wrong with it, before and behind the longest place for its end.
    """
    longest = LIMITS.target_bytes + 64
    for count in range(longest - 3, longest + 4):
        for begin in (b"", b"\r\n", b"G\n", b"G\rE"):
            for end in (b"\n", b"\r", b"\rx", b"\r\n", b"\r\n\r\n", b"\nx\r\n\r\n"):
                data = begin + b"\0" * (count - len(begin.strip())) + end
                whole = comparable(read([data], LIMITS))
                pieces = [data[i : i + 1] for i in range(len(data))]
                assert whole == comparable(read(pieces, LIMITS)), data


@exploring(100)
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=10), st.integers(1, 50))
def test_chunks_of_any_bytes_are_put_together_again(
    chunks: list[bytes], step: int
) -> None:
    """
    A body is what was put into its chunks.
    """
    data = b"PUT /k HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    data += b"".join(b"%X\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    data += b"0\r\n\r\n"
    seen = read([data[i : i + step] for i in range(0, len(data), step)])

    assert b"".join(chunks) == b"".join(e for e in seen if isinstance(e, bytes))
    assert "end" == seen[-1]
