"""
Tests for `kvd.http.fast_path`: values that are held in memory.
"""

from __future__ import annotations

import os
import re
import time
from unittest import mock

from kvd.http.fast_path import CLOSES, SERVED
from kvd.http.wire.replies import http_date
from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.store import attribute
from tests.http.fast_path.cases import FallbackCase, FastPathCase, body_of, field, get


class KeptValueTests(FastPathCase):
    """
    A value that was read is sent from memory.
    """

    def test_its_reply_is_whole(self) -> None:
        """
        All that the ordinary way says, in its order.
        """
        etag = self.keep("a/b", b"value")
        reply = self.served(get("a/b"))

        assert re.fullmatch(
            rb"HTTP/1\.1 200 OK\r\n"
            rb"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n"
            rb'ETag: "' + etag.encode() + rb'"\r\n'
            rb"Last-Modified: [^\r]{29}\r\n"
            rb"Accept-Ranges: bytes\r\n"
            rb"X-Content-Type-Options: nosniff\r\n"
            rb"Content-Type: application/octet-stream\r\n"
            rb"Content-Length: 5\r\n\r\nvalue",
            reply,
        )

    def test_its_date_is_now(self) -> None:
        """
        As all replies say it.
        """
        self.keep("k", b"v")
        before = int(time.time())
        said = field(self.served(get("k")), "Date")

        assert said in {http_date(before + seconds) for seconds in (-1, 0, 1)}

    def test_an_empty_one_too(self) -> None:
        """
        Its reply is all head.
        """
        self.keep("k", b"")
        reply = self.served(get("k"))

        assert "0" == field(reply, "Content-Length")
        assert b"" == body_of(reply)

    def test_its_metadata_is_reported(self) -> None:
        """
        As it was stored.
        """
        fields = {
            "content-type": "text/plain",
            "content-encoding": "br",
            "content-language": "de",
            "content-disposition": "inline",
            "cache-control": "no-cache",
            "expires": "0",
        }
        self.put(self.store, Key(b"k"), b"v", metadata=fields)
        self.get(self.store, Key(b"k"))
        reply = self.served(get("k"))

        assert fields == {name: field(reply, name) for name in fields}

    def test_an_empty_type_is_none(self) -> None:
        """
        It may stand in the store.
        """
        self.put(self.store, Key(b"k"), b"v", metadata={"content-type": ""})
        self.get(self.store, Key(b"k"))
        reply = self.served(get("k"))

        assert "application/octet-stream" == field(reply, "Content-Type")

    def test_connections_end_as_the_client_asks(self) -> None:
        """
        Which the reply repeats.
        """
        self.keep("k", b"v")
        table = [
            (1, b"", SERVED, None),
            (1, b"Connection: close\r\n", SERVED | CLOSES, "close"),
            (0, b"", SERVED | CLOSES, "close"),
            (0, b"Connection: keep-alive\r\n", SERVED, "keep-alive"),
        ]
        for minor, fields, outcome, said in table:
            assert outcome == self.serve(get("k", fields, minor))
            assert said == field(self.reply(), "Connection")

    def test_every_key_has_its_own(self) -> None:
        """
        Though all heads have one form.
        """
        for number in range(300):
            self.keep(f"{number}", b"%d" % number)
        for number in range(300):
            assert b"%d" % number == body_of(self.served(get(f"{number}")))

    def test_many_forms_are_known(self) -> None:
        """
        More than are remembered.
        """
        self.keep("k", b"v")
        for number in range(600):
            request = get("k", b"User-Agent: %d\r\n" % number)
            assert b"v" == body_of(self.served(request))


class KeptValueFallbackTests(FallbackCase, KeptValueTests):
    """
    See there; without the fast path.
    """


class OtherValueTests(FastPathCase):
    """
    What is no more, or not, the value in memory, is left to who can say.
    """

    def setUp(self) -> None:
        super().setUp()
        self.keep("a/b", b"value")
        self.file = os.path.join(self.path, "a", "b")
        self.served(get("a/b"))

    def read_again(self) -> bytes:
        """
        Left alone at first; served when it was read the ordinary way.
        """
        self.assert_left(get("a/b"))
        self.get(self.store, Key(b"a/b"))
        return body_of(self.served(get("a/b")))

    def test_nothing_of_it_was_read(self) -> None:
        """
        Nor ever was.
        """
        self.publish(self.store, Key(b"new"), b"v")
        self.assert_left(get("new"))
        self.assert_left(get("none"))

    def test_another_process_has_replaced_it(self) -> None:
        """
        By one of the same length.
        """
        self.publish(self.open_store(), Key(b"a/b"), b"other")

        assert b"other" == self.read_again()

    def test_this_process_has_replaced_it(self) -> None:
        """
        The ordinary way.
        """
        self.publish(self.store, Key(b"a/b"), b"other")

        assert b"other" == self.read_again()

    def test_somebody_has_written_to_it(self) -> None:
        """
        Its times tell, which nobody can set back all.
        """
        times = os.stat(self.file).st_atime_ns, os.stat(self.file).st_mtime_ns
        with open(self.file, "r+b") as file:
            file.write(b"VALUE")
        os.utime(self.file, ns=times)

        assert b"VALUE" == self.read_again()

    def test_somebody_has_set_its_time(self) -> None:
        """
        Even by exact copies of its other times.
        """
        os.utime(self.file, ns=(0, 0))
        self.assert_left(get("a/b"))

    def test_it_is_longer_or_shorter(self) -> None:
        """
        Then it counts as torn.
        """
        for size in (6, 4, 0):
            os.truncate(self.file, size)
            self.assert_left(get("a/b"))

    def test_it_is_gone(self) -> None:
        """
        With its folder, too.
        """
        os.rename(self.file, self.file + "-away")
        self.assert_left(get("a/b"))
        os.rename(self.file + "-away", self.file)
        self.store.remove(Key(b"a/b"), UNCONDITIONAL)
        self.assert_left(get("a/b"))

    def test_something_else_has_its_name(self) -> None:
        """
        A link to the very file, or a folder.
        """
        os.rename(self.file, self.file + "-away")
        os.symlink("b-away", self.file)
        self.assert_left(get("a/b"))
        os.unlink(self.file)
        os.mkdir(self.file)
        self.assert_left(get("a/b"))

    def test_a_link_leads_to_it(self) -> None:
        """
        It is no value, whatever is remembered, until there is a folder again.
        """
        folder = os.path.dirname(self.file)
        os.rename(folder, folder + "-away")
        os.symlink("a-away", folder)
        self.assert_left(get("a/b"))
        os.unlink(folder)
        os.rename(folder + "-away", folder)
        self.served(get("a/b"))

    def test_it_is_held_no_more(self) -> None:
        """
        From the moment that its inode could be another's: what was forgotten is not
        known, even if the same number comes again.
        """
        self.store.fast_path_state.recent.close()
        self.assert_left(get("a/b"))

    def test_it_is_of_others(self) -> None:
        """
        Who have given it a time beyond all calendars, or metadata that no field can
        hold.
        """
        path = os.path.join(self.path, "k")
        for seconds in (-(2**33), 2**40, 2**62 // 10**9):
            self.keep("k", b"v")
            os.utime(path, (seconds, seconds))
            self.get(self.store, Key(b"k"))
            self.assert_left(get("k"))
        for line in ("content-type: a\0b", "content-type: \N{SNOWMAN}", "age: 1"):
            etag = self.keep("k", b"v")
            published_us = os.stat(path).st_mtime_ns // 1000
            lines = f"{line}\n".encode()
            text = attribute.encode(etag, 1, published_us, lines)
            os.setxattr(path, attribute.NAME, text)
            self.get(self.store, Key(b"k"))
            self.assert_left(get("k"))

    def keep_of_an_hour_ahead(self) -> None:
        """
        A value from when the clock was ahead.
        """
        self.keep("k", b"v")
        path = os.path.join(self.path, "k")
        ahead_us = time.time_ns() // 1000 + 3_600_000_000
        os.setxattr(path, attribute.NAME, attribute.encode("a" * 32, 1, ahead_us, b""))
        os.utime(path, ns=(0, 1000 * ahead_us))
        assert b"v" == self.get(self.store, Key(b"k"))
        assert "a" * 32 == self.result(self.store.stat(Key(b"k"))).etag

    def test_its_date_is_to_come(self) -> None:
        """
        It is said to be of the present, which goes on.
        """
        self.keep_of_an_hour_ahead()
        self.assert_left(get("k"))

    def test_its_date_is_to_come_again(self) -> None:
        """
        The clock was set back after a reply to it was composed.
        """
        self.keep_of_an_hour_ahead()
        with mock.patch("time.time", return_value=time.time() + 7200):
            # The native clock is the true one.
            self.assert_left(get("k"))
        assert Key(b"k") in self.store.fast_path_state.recent._values

    def test_its_head_is_too_long(self) -> None:
        """
        It has no room where the fast path composes it.
        """
        fields = {"content-type": "x" * 900}
        self.put(self.store, Key(b"k"), b"v", metadata=fields)
        self.get(self.store, Key(b"k"))
        self.assert_left(get("k"))


class ManyValuesTests(FastPathCase):
    """
    As many are held as the store holds.
    """

    def test_what_the_store_lets_go_of_is_let_go_of(self) -> None:
        """
        The fast path holds no value longer.
        """
        self.store.fast_path_state.recent._most = 10
        for number in range(30):
            self.keep(f"{number}", b"%d" % number)
            self.served(get(f"{number}"))
        kept = [n for n in range(30) if self.serve(get(f"{n}")) == SERVED]

        assert [*range(20, 30)] == kept
