"""
Tests for the locks of `kvd.http.dialects.webdav`, over a store in memory.
"""

from __future__ import annotations

import re
from typing import Any
from xml.etree.ElementTree import fromstring

from zope.interface import implementer

from kvd.access.tokens import token_digest
from kvd.errors import PreconditionFailed, StoreFull
from kvd.http.connection import HttpConnection
from kvd.http.context import ProcessContext
from kvd.http.dialects.choice import Dialects
from kvd.http.dialects.webdav import answers, locks
from kvd.interfaces import IConditionalStore
from kvd.model.conditions import Conditions
from kvd.model.keys import Key
from kvd.model.values import Published
from kvd.settings import DialectChoice
from kvd.store.memory import MemoryStore, MemoryUpload
from tests.http.dialects.cases import DAV, WebDAVCase
from tests.http.test_connection import body, detail, field, status
from tests.stepped import connect

INFO = (
    '<?xml version="1.0"?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:{}/></D:lockscope>'
    "<D:locktype><D:write/></D:locktype><D:owner>{}</D:owner></D:lockinfo>"
)
RECORD = Key(b"dav/.kvd-locks")
OTHER = "If: (<opaquelocktoken:00000000-0000-0000-0000-000000000000>)\r\n"
TO_COPY = "Destination: /dav/w\r\n"


def held(token: str, path: str = "") -> str:
    """
    The field of a request whose sender has a lock.
    """
    about = f"<{path}> " if path else ""
    return f"If: {about}(<{token}>)\r\n"


class LockCase(WebDAVCase):
    """
    Locks that tests take, and a time that passes when they say so.
    """

    def setUp(self) -> None:
        super().setUp()
        self.time = 1_000_000_000.0
        self.patch(locks, "now", lambda: self.time)

    def lock(
        self,
        path: str,
        fields: str = "",
        scope: str = "exclusive",
        expected: int = 200,
        owner: str = "somebody",
    ) -> str:
        """
        The token of a new lock; empty where it is refused.
        """
        content = INFO.format(scope, owner).encode()
        reply = self.request(f"LOCK {path}", fields, content)
        assert expected == status(reply), reply
        token = (field(reply, b"Lock-Token") or b"").decode()
        assert (expected < 202) == bool(re.fullmatch("<opaquelocktoken:[^>]+>", token))
        return token[1:-1]

    def come_from(self, address: str) -> None:
        """
        The next requests are those of a client with this address.
        """
        protocol = HttpConnection(self.process)
        self.client = connect(self.reactor, protocol, peer=(address, 1))
        self.addCleanup(self.client.socket.close)

    def unlock(self, path: str, token: str, expected: int = 204) -> None:
        """
        Release a lock.
        """
        reply = self.request(f"UNLOCK {path}", f"Lock-Token: <{token}>\r\n")
        assert expected == status(reply), reply

    def discovered(self, path: str) -> list[tuple[str, str, str, str]]:
        """
        What is said about the locks on something: scope, depth, timeout and root.
        """
        found = self.propfind(path, 0)
        (each,) = found.values()
        active = each.iterfind(f".//{DAV}activelock")
        return [
            (
                lock.find(f"{DAV}lockscope")[0].tag[len(DAV) :],  # type: ignore[index]
                lock.findtext(f"{DAV}depth") or "",
                lock.findtext(f"{DAV}timeout") or "",
                lock.findtext(f"{DAV}lockroot/{DAV}href") or "",
            )
            for lock in active
        ]


class WritingTests(LockCase):
    """
    What is locked is changed by who has the lock.
    """

    def test_locks_are_offered(self) -> None:
        """
        OPTIONS says so, and so do the properties.
        """
        self.put(b"dav/v", b"value")
        reply = self.request("OPTIONS /dav/a")
        assert (200, b"1, 2") == (status(reply), field(reply, b"DAV"))
        assert b"LOCK, UNLOCK" in (field(reply, b"Allow") or b"")
        found = self.propfind("/dav/v", 0)["/dav/v"]
        entries = found.findall(f".//{DAV}supportedlock/{DAV}lockentry")
        assert 2 == len(entries)
        assert [] == self.discovered("/dav/v")

    def test_only_who_has_the_lock_changes_a_value(self) -> None:
        """
        By any method; everybody reads.
        """
        self.put(b"dav/v", b"value")
        self.put(b"dav/other", b"other")
        token = self.lock("/dav/v")
        patch = b'<propertyupdate xmlns="DAV:"><set><prop><a xmlns="b"/></prop></set>'
        to_locked = "Destination: /dav/v\r\n"
        for line, fields, content in (
            ("PUT /dav/v", "", b"new"),
            ("PROPPATCH /dav/v", "", patch + b"</propertyupdate>"),
            ("COPY /dav/other", to_locked, None),
            ("MOVE /dav/v", TO_COPY, None),
            ("DELETE /dav/v", "", None),
        ):
            for claim, expected in (("", 423), (OTHER, 412)):
                reply = self.request(line, fields + claim, content)
                assert (line, claim, expected) == (line, claim, status(reply))
            reply = self.request(line, fields, content)
            root = fromstring(body(reply))
            assert "/dav/v" == root.findtext(f"{DAV}lock-token-submitted/{DAV}href")
            self.statuses(("GET /dav/v", "", None, 200))
            if line.startswith("DELETE"):
                continue
            # Of a COPY onto it, too: the path of the request is another one.
            reply = self.request(line, fields + held(token, "/dav/v"), content)
            assert (line, True) == (line, status(reply) < 300)
            if line.startswith("MOVE"):
                self.put(b"dav/v", b"value")
                token = self.lock("/dav/v")
        self.statuses(("DELETE /dav/v", held(token), None, 204))
        # With the value, its lock has gone.
        self.statuses(("PUT /dav/v", "", b"new", 201))

    def test_plain_put_meets_the_lock_too(self) -> None:
        """
        All that is below the prefix is WebDAV's, also for curl.
        """
        token = self.lock("/dav/v", expected=201)
        self.statuses(
            ("PUT /dav/v", "", b"new", 423),
            ("PUT /dav/./v", "", b"new", 423),
        )
        self.unlock("/dav/v", token)
        self.statuses(("PUT /dav/v", "", b"new", 204))

    def test_lock_that_is_taken_during_an_upload_counts(self) -> None:
        """
        Nothing is published.
        """
        self.put(b"dav/v", b"value")
        self.client.send(
            b"PUT /dav/v HTTP/1.1\r\nHost: kvd\r\nContent-Length: 2\r\n\r\nn"
        )
        begun, self.client = self.client, self.connect()
        self.lock("/dav/v")

        assert 423 == status(begun.send(b"w").receive())
        assert b"value" == self.value(b"dav/v")

    def test_entity_tag_in_states_holds_while_the_value_is_changed(self) -> None:
        """
        As one in If-Match does: somebody else comes after all that was checked before.
        """
        commit, remove = MemoryUpload.commit, MemoryStore.remove
        others: list[bytes] = []

        def come_before() -> None:
            if others:
                self.put(b"dav/v", others.pop())

        def commit_after(upload: MemoryUpload, conditions: Conditions) -> Any:
            come_before()
            return commit(upload, conditions)

        def remove_after(store: MemoryStore, key: Key, conditions: Conditions) -> Any:
            come_before()
            return remove(store, key, conditions)

        self.patch(MemoryUpload, "commit", commit_after)
        self.patch(MemoryStore, "remove", remove_after)
        for line, content in (("PUT /dav/v", b"new"), ("DELETE /dav/v", None)):
            states = f'If: (["{self.put(b"dav/v", b"value")}"])\r\n'
            others.append(b"other")
            reply = self.request(line, states, content)
            assert (line, 412, []) == (line, status(reply), others)
            assert b"other" == self.value(b"dav/v")
            etag = self.put(b"dav/v", b"value")
            reply = self.request(line, f'If: (["x"]) (["{etag}"])\r\n', content)
            assert (line, 204) == (line, status(reply))

    def test_long_body_is_refused_before_it_comes(self) -> None:
        """
        Its client need not send it.
        """
        self.lock("/dav/v", expected=201)
        head = b"PUT /dav/v HTTP/1.1\r\nHost: kvd\r\nContent-Length: 1000000\r\n"
        reply = self.ask(head + b"Expect: 100-continue\r\n\r\n")
        assert 423 == status(reply)

    def test_lock_on_nothing_makes_a_value(self) -> None:
        """
        An empty one, where a value could be made; it stays when the lock is released.
        """
        token = self.lock("/dav/v", "Depth: 0\r\nTimeout: Infinite\r\n", expected=201)
        assert b"" == self.value(b"dav/v")
        assert [("exclusive", "0", "Second-3600", "/dav/v")] == self.discovered(
            "/dav/v"
        )
        self.unlock("/dav/v", token)
        self.statuses(("GET /dav/v", "", None, 200))
        self.lock("/dav/none/v", expected=409)
        self.lock("/dav/none/", expected=405)
        self.statuses(("PUT /dav/none", "", b"", 201))

    def test_shared_locks_stand_beside_each_other(self) -> None:
        """
        Each lets its holder write, and none is exclusive.
        """
        self.put(b"dav/v", b"value")
        one = self.lock("/dav/v", scope="shared")
        other = self.lock("/dav/v", scope="shared")
        self.lock("/dav/v", expected=423)
        self.statuses(
            ("PUT /dav/v", "", b"new", 423),
            ("PUT /dav/v", held(one), b"new", 204),
            ("PUT /dav/v", held(other), b"new", 204),
        )
        self.unlock("/dav/v", one)
        assert ["shared"] == [scope for scope, *_ in self.discovered("/dav/v")]

    def test_copies_are_not_locked(self) -> None:
        """
        Nor is what was moved; the lock does not stay behind either.
        """
        self.put(b"dav/v", b"value")
        token = self.lock("/dav/v")
        self.statuses(
            ("COPY /dav/v", TO_COPY, None, 201),
            ("PUT /dav/w", "", b"new", 204),
            ("MOVE /dav/v", TO_COPY + held(token), None, 204),
            ("PUT /dav/w", "", b"new", 204),
            ("PUT /dav/v", "", b"new", 201),
        )
        self.unlock("/dav/v", token, 409)


class CollectionTests(LockCase):
    """
    Locks on collections.
    """

    def setUp(self) -> None:
        super().setUp()
        self.put(b"dav/c/d/v", b"value")

    def test_infinite_lock_is_on_all_below(self) -> None:
        """
        Also on what is made there later.
        """
        token = self.lock("/dav/c/")
        assert [("exclusive", "infinity", "Second-3600", "/dav/c/")] == self.discovered(
            "/dav/c/d/v"
        )
        for line, fields, content, expected in (
            ("PUT /dav/c/d/v", "", b"new", 204),
            ("PUT /dav/c/n", "", b"new", 201),
            ("MKCOL /dav/c/m/", "", None, 201),
            ("DELETE /dav/c/d/v", "", None, 204),
            ("DELETE /dav/c", "", None, 204),
        ):
            self.statuses((line, fields, content, 423))
            self.statuses((line, fields + held(token), content, expected))
        assert [RECORD] == self.keys()
        self.unlock("/dav/c/", token, 409)

    def test_lock_of_depth_0_is_on_the_members(self) -> None:
        """
        None is made or removed; what is in them changes freely.
        """
        token = self.lock("/dav/c", "Depth: 0\r\n")
        to_member = "Destination: /dav/c/n\r\n"
        self.put(b"dav/w", b"value")
        self.put(b"dav/c/v", b"value")
        self.statuses(
            ("PUT /dav/c/v", "", b"new", 204),
            ("PUT /dav/c/d/new", "", b"new", 201),
            ("PUT /dav/c/n", "", b"new", 423),
            ("MKCOL /dav/c/n/", "", None, 423),
            ("COPY /dav/w", to_member, None, 423),
            ("MOVE /dav/c/v", TO_COPY, None, 423),
            ("DELETE /dav/c/v", "", None, 423),
            ("PUT /dav/c/n", held(token, "/dav/c/"), b"new", 201),
        )
        self.lock("/dav/c/o", expected=423)
        self.lock("/dav/c/v")

    def test_lock_below_hinders_one_above(self) -> None:
        """
        The reply names it; with depth 0 it does not hinder.
        """
        token = self.lock("/dav/c/d/v")
        reply = self.request("LOCK /dav/c/", "", INFO.format("shared", "").encode())
        assert 207 == status(reply)
        found = fromstring(body(reply))
        said = {
            each.findtext(f"{DAV}href"): each.findtext(f"{DAV}status")
            for each in found.iterfind(f"{DAV}response")
        }
        assert {
            "/dav/c/d/v": "HTTP/1.1 423 Locked",
            "/dav/c/": "HTTP/1.1 424 Failed Dependency",
        } == said
        self.lock("/dav/c/", "Depth: 0\r\n")
        for line in ("DELETE /dav/c/", "MOVE /dav/c/"):
            reply = self.request(line, TO_COPY)
            assert (line, 423) == (line, status(reply))
        assert b"value" == self.value(b"dav/c/d/v")
        self.unlock("/dav/c/d/v", token)

    def test_root_collection_is_locked(self) -> None:
        """
        With all that is in it; the record of the locks is never seen.
        """
        token = self.lock("/dav/")
        self.statuses(("PUT /dav/c/d/v", "", b"new", 423))
        assert ["/dav/", "/dav/c/"] == [*self.propfind("/dav/")]
        self.unlock("/dav/c/d/v", token)
        self.statuses(("PUT /dav/c/d/v", "", b"new", 204))


class EverywhereTests(LockCase):
    """
    WebDAV for all keys of a store.
    """

    dialects = (DialectChoice("/", "webdav"),)

    def test_root_of_the_store_is_locked(self) -> None:
        """
        Its record has no prefix, and is not seen either.
        """
        self.put(b"c/v", b"value")
        token = self.lock("/", "Depth: 0\r\n")
        self.statuses(
            ("PUT /n", "", b"new", 423),
            ("PUT /c/v", "", b"new", 204),
            ("GET /.kvd-locks", "", None, 400),
        )
        assert ["/", "/c/"] == [*self.propfind("/")]
        self.unlock("/", token)
        token = self.lock("/")
        self.statuses(("PUT /c/v", "", b"new", 423))
        self.unlock("/c/v", token)


class LastingTests(LockCase):
    """
    How long locks last, and where.
    """

    def test_lock_of_a_client_that_vanished_ends(self) -> None:
        """
        After the time that it was granted for; until then it can be refreshed.
        """
        token = self.lock("/dav/v", "Timeout: Infinite, Second-600\r\n", expected=201)
        self.time += 599
        assert [("exclusive", "infinity", "Second-1", "/dav/v")] == self.discovered(
            "/dav/v"
        )
        refresh = held(token) + "Timeout: Second-4100000000\r\n"
        reply = self.request("LOCK /dav/v", refresh)
        assert (200, None) == (status(reply), field(reply, b"Lock-Token"))
        assert b"Second-3600" in body(reply)
        self.time += 3599
        self.statuses(("PUT /dav/v", "", b"new", 423))
        self.time += 1
        self.statuses(
            ("LOCK /dav/v", held(token), None, 412),
            ("PUT /dav/v", held(token), b"new", 412),
            ("PUT /dav/v", "", b"new", 204),
        )
        self.lock("/dav/v")

    def test_lock_holds_in_other_workers_and_after_a_restart(self) -> None:
        """
        They have nothing in common but the store.
        """
        token = self.lock("/dav/v", expected=201)
        self.process = ProcessContext(
            self.store, Dialects(self.dialects), self.limits, self.reactor
        )
        self.client = self.connect()
        self.lock("/dav/v", expected=423)
        self.statuses(("PUT /dav/v", "", b"new", 423))
        self.unlock("/dav/v", token)

    def test_of_two_locks_at_once_one_is_granted(self) -> None:
        """
        Although neither was there when the other was looked for.
        """
        self.put(b"dav/c/v", b"value")
        before, granted = self.store.begin, list[str]()

        def begin(key: Key, *rest: Any) -> Any:
            upload = before(key, *rest)
            if key == RECORD and not granted:
                granted.append("")
                own, self.client = self.client, self.connect()
                granted.append(self.lock("/dav/c/v"))
                self.client = own
            return upload

        self.patch(self.store, "begin", begin)
        reply = self.request("LOCK /dav/c/", "", INFO.format("exclusive", "").encode())
        assert 207 == status(reply)
        assert ["/dav/c/v"] == [root for *_, root in self.discovered("/dav/c/v")]

    def test_lock_whose_reply_from_the_engine_was_lost_is_granted(self) -> None:
        """
        And released. Asked again, the engine says that somebody came before: it was
        this request itself.
        """
        self.put(b"dav/v", b"value")
        commit, lost = MemoryUpload._commit, list[bool]()

        def commit_twice(upload: MemoryUpload, conditions: Conditions) -> Published:
            published = commit(upload, conditions)
            lost.append(not lost or not lost[-1])
            if lost[-1]:
                raise PreconditionFailed("Somebody came before.")
            return published

        self.patch(MemoryUpload, "_commit", commit_twice)
        token = self.lock("/dav/v")
        assert 1 == len(self.discovered("/dav/v"))
        lost.clear()
        self.unlock("/dav/v", token)
        assert [True] == lost
        assert [] == self.discovered("/dav/v")

    def test_lock_on_what_was_made_again_is_kept(self) -> None:
        """
        A DELETE removes the locks that were there before it, and none that somebody
        else got since.
        """
        self.put(b"dav/v", b"value")
        token = self.lock("/dav/v")
        remove, granted = MemoryStore.remove, list[str]()

        def remove_before(store: MemoryStore, key: Key, conditions: Conditions) -> Any:
            removed = remove(store, key, conditions)
            # The record still has the lock, until it ends.
            self.time += 3600
            own, self.client = self.client, self.connect()
            granted.append(self.lock("/dav/v", expected=201))
            self.client = own
            return removed

        self.patch(MemoryStore, "remove", remove_before)
        self.statuses(("DELETE /dav/v", held(token), None, 204))
        self.statuses(("PUT /dav/v", "", b"new", 423))
        self.unlock("/dav/v", granted[0])

    def test_lock_without_its_value_is_not_kept(self) -> None:
        """
        The value could not be made.
        """
        before = self.store.begin

        def begin(key: Key, *rest: Any) -> Any:
            if key != RECORD:
                raise StoreFull("It is full.")
            return before(key, *rest)

        self.patch(self.store, "begin", begin)
        self.lock("/dav/v", expected=507)
        assert b"" == self.value(RECORD)


class RefusalTests(LockCase):
    """
    What is asked wrongly.
    """

    def test_bad_requests_are_refused(self) -> None:
        """
        In words, and nothing is locked.
        """
        self.put(b"dav/v", b"value")
        good = INFO.format("shared", "").encode()
        bomb = b'<!DOCTYPE a [<!ENTITY b "c">]>' + good.partition(b"?>")[2]
        for fields, content in (
            ("", None),
            ("", b"<lockinfo/>"),
            ("", b"<D:lockinfo xmlns:D='DAV:'/>"),
            ("", good.replace(b"shared", b"other")),
            ("", bomb),
            ("", INFO.format("shared", "x" * 2000).encode()),
            ("Depth: 1\r\n", good),
            ("If: ()\r\n", good),
        ):
            reply = self.request("LOCK /dav/v", fields, content)
            assert (content, 400) == (content, status(reply))
            assert detail(reply)
        for token in ("", "Lock-Token: opaquelocktoken:1\r\n"):
            self.statuses(("UNLOCK /dav/v", token, None, 400))
        self.unlock("/dav/v", "opaquelocktoken:1", 409)
        assert [b"dav/v"] == self.keys()

    def test_states_are_read_and_compared(self) -> None:
        """
        Lists of tokens and entity tags, each perhaps about another URL.
        """
        etag = self.put(b"dav/v", b"value")
        self.put(b"dav/w", b"value")
        token = self.lock("/dav/w")
        for text, expected in (
            (f'(["{etag}"])', 207),
            (f'(Not ["{etag}"])', 412),
            (f'([W/"{etag}"])', 412),
            ("(<DAV:no-lock>)", 412),
            ("(Not <DAV:no-lock>)", 207),
            (f"(<{token}>)", 412),
            (f"</dav/w> (<{token}>)", 207),
            (f"<http://kvd/dav/w> (<{token}>)", 207),
            (f"</elsewhere> (<{token}>)", 412),
            (f'</dav/w>(<{token}>["x"]) (Not <DAV:no-lock>)', 207),
            (f'(<DAV:no-lock>) (["{etag}"] Not <DAV:no-lock>)', 207),
            ("(<a>", 400),
            ("<a>", 400),
            ("(Not)", 400),
            ("(Not Not <a>)", 400),
            ("(<a>) </dav/w> (<a>)", 400),
            ("(<a>) b", 400),
            ("[a]", 400),
            ("", 400),
        ):
            reply = self.request("PROPFIND /dav/v", f"Depth: 0\r\nIf: {text}\r\n")
            assert (text, expected) == (text, status(reply))

    def test_what_lists_repeat_is_looked_up_once(self) -> None:
        """
        Otherwise a small request could ask a thousand times for a value, or compare a
        thousand locks a thousand times.
        """
        self.put(b"dav/v", b"value")
        stat, asked = self.store.stat, list[Key]()

        def counted(key: Key) -> Any:
            asked.append(key)
            return stat(key)

        self.patch(self.store, "stat", counted)
        lists = '(["a"]) (Not <DAV:no-lock> ["b"])' * 50
        self.statuses(("DELETE /dav/v", f"If: {lists}\r\n", None, 412))
        assert [Key(b"dav/v")] == asked

    def test_members_are_told_in_pieces(self) -> None:
        """
        Of which all arrive: each member has all locks on the collection.
        """
        self.patch(answers, "PIECE_BYTES", 1)
        for name in (b"v", b"w", b"x"):
            self.put(b"dav/" + name, b"value")
        self.lock("/dav/", scope="shared")
        self.lock("/dav/", scope="shared")
        self.lock("/dav/w", scope="shared")
        found = self.propfind("/dav/")
        locked = {
            path: len(each.findall(f".//{DAV}activelock"))
            for path, each in found.items()
        }
        assert {"/dav/": 2, "/dav/v": 2, "/dav/w": 3, "/dav/x": 2} == locked

    def test_one_client_leaves_locks_for_others(self) -> None:
        """
        As many as it has itself: whoever comes next still gets some. Its own are
        refreshed and released all the same.
        """
        self.patch(locks, "MOST_LOCKS", 6)
        for name in "abcdef":
            self.put(f"dav/{name}".encode(), b"value")
        self.come_from("10.0.0.1")
        tokens = [self.lock(f"/dav/{name}") for name in "abc"]
        reply = self.request("LOCK /dav/d", "", INFO.format("shared", "").encode())
        assert 507 == status(reply)
        said = "Clients without a name from 10.0.0.1 have 3 of the 6 locks"
        assert said in detail(reply)
        self.come_from("10.0.0.2")
        self.lock("/dav/d")
        self.lock("/dav/e", expected=507)
        self.come_from("10.0.0.1")
        self.statuses(("LOCK /dav/a", held(tokens[0]), None, 200))
        for name, token in zip("abc", tokens, strict=True):
            self.unlock(f"/dav/{name}", token)
        self.lock("/dav/e")
        self.lock("/dav/f")
        self.come_from("10.0.0.3")
        self.lock("/dav/a")
        # One more is there for a newcomer, who hears that the others are in the way.
        self.come_from("2001:db8::1")
        reply = self.request("LOCK /dav/b", "", INFO.format("shared", "").encode())
        assert 200 == status(reply)
        self.come_from("10.0.0.5")
        self.lock("/dav/c", expected=503)

    def test_share_is_a_users_and_a_networks(self) -> None:
        """
        Wherever a user comes from; of IPv6, all addresses of a customer are one.
        """
        self.patch(locks, "MOST_LOCKS", 4)
        for name in "abcd":
            self.put(f"dav/{name}".encode(), b"value")
        rights = '["read", "write", "list"]'
        self.permit(
            "".join(
                f"[users.{user}]\n[[users.{user}.tokens]]\n"
                f"sha256 = '{token_digest('kvd_' + user).hex()}'\n"
                f"[users.{user}.rights]\n'/' = {rights}\n"
                for user in ("a", "b")
            )
            + f"[anonymous.rights]\n'/' = {rights}\n"
        )
        a, b = (f"Authorization: Bearer kvd_{user}\r\n" for user in "ab")
        self.come_from("10.0.0.1")
        tokens = [self.lock(f"/dav/{name}", a) for name in "ab"]
        self.come_from("10.0.0.2")
        content = INFO.format("exclusive", "").encode()
        reply = self.request("LOCK /dav/c", a, content)
        assert (507, True) == (status(reply), "The user a has 2" in detail(reply))
        self.lock("/dav/c", b)
        self.unlock("/dav/a", tokens[0], 403)
        reply = self.request("UNLOCK /dav/a", f"{a}Lock-Token: <{tokens[0]}>\r\n")
        assert 204 == status(reply)
        self.come_from("2001:db8::1")
        self.lock("/dav/a")
        self.come_from("2001:db8::2")
        self.lock("/dav/d", expected=507)

    def test_share_holds_between_workers(self) -> None:
        """
        Also of locks that one client takes at several workers at once.
        """
        self.patch(locks, "MOST_LOCKS", 2)
        self.put(b"dav/v", b"value")
        self.put(b"dav/w", b"value")
        before, granted = self.store.begin, list[str]()

        def begin(key: Key, *rest: Any) -> Any:
            upload = before(key, *rest)
            if key == RECORD and not granted:
                granted.append("")
                own, self.client = self.client, self.connect()
                granted.append(self.lock("/dav/v"))
                self.client = own
            return upload

        self.patch(self.store, "begin", begin)
        self.lock("/dav/w", expected=507)
        assert ["/dav/v"] == [root for *_, root in self.discovered("/dav/v")]

    def test_locks_of_a_vanished_client_are_free_again(self) -> None:
        """
        Once their time is over; so is its share of the record.
        """
        self.patch(locks, "MOST_LOCKS", 2)
        self.put(b"dav/w", b"value")
        self.lock("/dav/v", "Timeout: Second-60\r\n", expected=201)
        self.lock("/dav/w", expected=507)
        self.time += 60
        self.lock("/dav/w")
        assert 1 == self.store.values[RECORD][1].count(b"opaquelocktoken")

    def test_record_is_bounded(self) -> None:
        """
        In its bytes too, of which one client leaves as many as it has.
        """
        self.patch(locks, "MOST_BYTES", 2000)
        self.put(b"dav/v", b"value")
        self.come_from("10.0.0.1")
        token = self.lock("/dav/v", scope="shared", owner=500 * "o")
        content = INFO.format("shared", "").encode()
        reply = self.request("LOCK /dav/v", "", content)
        assert (507, True) == (status(reply), "the 2000 bytes" in detail(reply))
        self.come_from("10.0.0.2")
        content = INFO.format("shared", 900 * "o").encode()
        reply = self.request("LOCK /dav/v", "", content)
        assert (503, True) == (status(reply), "2000 bytes" in detail(reply))
        # It has grown otherwise: what could not be read again is not written.
        self.patch(locks, "MOST_BYTES", 100)
        self.come_from("10.0.0.1")
        reply = self.request("LOCK /dav/v", held(token))
        assert (503, True) == (status(reply), "100 bytes" in detail(reply))
        self.unlock("/dav/v", token)

    def test_damaged_record_lets_nobody_through(self) -> None:
        """
        The reply says what to do.
        """
        for record in (b"{", b"{}", b'{"locks": [{}]}', b"[]"):
            self.put(RECORD, record)
            reply = self.request("PUT /dav/v", "", b"value")
            assert 500 == status(reply)
            assert "Remove it" in detail(reply)
        assert [RECORD] == self.keys()


class UserTests(LockCase):
    """
    A lock is its user's.
    """

    def test_token_of_another_user_does_not_count(self) -> None:
        """
        Whoever may list sees it, and cannot write or release with it.
        """
        rights = '["read", "write", "delete", "list"]'
        self.permit(
            "".join(
                f"[users.{user}]\n[[users.{user}.tokens]]\n"
                f"sha256 = '{token_digest('kvd_' + user).hex()}'\n"
                f"[users.{user}.rights]\n'/dav/{user}/' = {rights}\n"
                f"'/dav/both/' = {rights}\n"
                for user in ("a", "b")
            )
        )
        self.put(b"dav/both/v", b"value")
        a, b = (f"Authorization: Bearer kvd_{user}\r\n" for user in "ab")
        token = self.lock("/dav/both/v", a)
        self.statuses(
            ("PUT /dav/both/v", b + held(token), b"new", 423),
            ("LOCK /dav/both/v", b + held(token), None, 412),
            ("UNLOCK /dav/both/v", b + f"Lock-Token: <{token}>\r\n", None, 403),
            ("PUT /dav/both/v", a + held(token), b"new", 204),
            # Nobody may lock what he may not write.
            ("LOCK /dav/a/v", b, INFO.format("shared", "").encode(), 403),
            ("UNLOCK /dav/both/v", a + f"Lock-Token: <{token}>\r\n", None, 204),
        )

    def test_nobody_locks_what_he_may_not_write(self) -> None:
        """
        With a collection, all that is below; who may write there may lock it.
        """
        self.permit(
            "[anonymous.rights]\n'/dav/c/' = ['read', 'write', 'list']\n"
            "'/dav/c/closed/' = ['read', 'list']\n"
        )
        self.put(b"dav/c/closed/v", b"value")
        self.put(b"dav/c/d/v", b"value")
        self.lock("/dav/c/closed/v", expected=401)
        self.lock("/dav/c/", expected=401)
        self.lock("/dav/", "Depth: 0\r\n", expected=401)
        self.lock("/dav/c/", "Depth: 0\r\n")
        token = self.lock("/dav/c/d/")
        self.unlock("/dav/c/d/", token)

    def test_who_may_only_write_meets_locks_too(self) -> None:
        """
        Without having the right to read them.
        """
        self.put(b"dav/c/v", b"value")
        self.lock("/dav/c/", "Depth: 0\r\n")
        self.lock("/dav/c/v")
        self.allow("write")
        self.statuses(
            ("PUT /dav/c/v", "", b"new", 423),
            ("PUT /dav/c/n", "", b"new", 423),
            ("PUT /dav/n", "", b"new", 201),
        )


@implementer(IConditionalStore)
class Swift(MemoryStore):
    """
    An engine that keeps no conditions.
    """

    def keeps_conditions(self) -> bool:
        """
        It does not.
        """
        return False


class UnlockableTests(LockCase):
    """
    A store where locks could not hold.
    """

    def make_store(self) -> MemoryStore:
        return Swift()

    def test_no_locks_are_offered(self) -> None:
        """
        All else is served, without a look at what cannot be there.
        """
        reply = self.request("OPTIONS /dav/")
        assert b"1" == field(reply, b"DAV")
        reply = self.request("LOCK /dav/v", "", INFO.format("shared", "").encode())
        assert 501 == status(reply)
        assert "hold between workers" in detail(reply)
        self.statuses(("PUT /dav/v", "", b"value", 201))
        found = self.propfind("/dav/v", 0)["/dav/v"]
        assert found.find(f".//{DAV}supportedlock") is None
        self.statuses(("DELETE /dav/v", "", None, 204))


class WindowsTests(LockCase):
    """
    The client of Windows (the MiniRedirector), as its exchanges are documented: the
    program is in no registry that the tests can reach.
    """

    AGENT = "User-Agent: Microsoft-WebDAV-MiniRedir/10.0.19045\r\ntranslate: f\r\n"
    LOCKING = "Depth: 0\r\nTimeout: Second-3600\r\n"
    INFO = (
        b'<?xml version="1.0" encoding="utf-8" ?><D:lockinfo xmlns:D="DAV:">'
        b"<D:lockscope><D:exclusive/></D:lockscope><D:locktype><D:write/></D:locktype>"
        b"<D:owner><D:href>HOST\\user</D:href></D:owner></D:lockinfo>"
    )
    PATCH = (
        b'<?xml version="1.0" encoding="utf-8" ?><D:propertyupdate xmlns:D="DAV:"'
        b' xmlns:Z="urn:schemas-microsoft-com:"><D:set><D:prop>'
        b"<Z:Win32CreationTime>Sun, 09 Sep 2001 01:46:40 GMT</Z:Win32CreationTime>"
        b"<Z:Win32LastAccessTime>Sun, 09 Sep 2001 01:46:40 GMT</Z:Win32LastAccessTime>"
        b"<Z:Win32LastModifiedTime>Sun, 09 Sep 2001 01:46:40 GMT"
        b"</Z:Win32LastModifiedTime>"
        b"<Z:Win32FileAttributes>00000020</Z:Win32FileAttributes>"
        b"</D:prop></D:set></D:propertyupdate>"
    )

    def test_a_file_is_copied_to_a_drive(self) -> None:
        """
        An empty value first, then its lock, its bytes, its times, and the release.
        """
        depth = self.AGENT + "Depth: {}\r\nContent-Length: 0\r\n"
        reply = self.request("OPTIONS /dav", self.AGENT)
        assert (b"1, 2", b"DAV") == (
            field(reply, b"DAV"),
            field(reply, b"MS-Author-Via"),
        )
        name = "/dav/New%20file.txt"
        self.statuses(
            ("PROPFIND /dav", depth.format(0), None, 207),
            ("PROPFIND /dav", depth.format(1), None, 207),
            (f"PROPFIND {name}", depth.format(0), None, 404),
            (f"PUT {name}", self.AGENT, b"", 201),
        )
        reply = self.request(f"LOCK {name}", self.AGENT + self.LOCKING, self.INFO)
        assert 200 == status(reply)
        shown = fromstring(body(reply))
        assert "HOST\\user" == shown.findtext(f".//{DAV}owner/{DAV}href")
        token = shown.findtext(f".//{DAV}locktoken/{DAV}href") or ""
        assert f"<{token}>".encode() == field(reply, b"Lock-Token")
        mine = self.AGENT + held(token)
        self.statuses(
            (f"PROPPATCH {name}", mine, self.PATCH, 207),
            (f"HEAD {name}", self.AGENT, None, 200),
            (f"PUT {name}", mine, b"content", 204),
            (f"LOCK {name}", mine + "Timeout: Second-3600\r\n", None, 200),
            (f"PROPPATCH {name}", mine, self.PATCH, 207),
            (f"UNLOCK {name}", f"{self.AGENT}Lock-Token: <{token}>\r\n", None, 204),
        )
        found = self.propfind("/dav/")["/dav/New%20file.txt"]
        modified = found.findtext(f".//{DAV}getlastmodified")
        assert "Sun, 09 Sep 2001 01:46:40 GMT" == modified
        attributes = "{urn:schemas-microsoft-com:}Win32FileAttributes"
        assert "00000020" == found.findtext(f".//{attributes}")

    def test_a_document_is_replaced(self) -> None:
        """
        As Office saves: beside it, then in its place.
        """
        self.put(b"dav/a.docx", b"old")
        self.put(b"dav/a.tmp", b"new")
        to = f"{self.AGENT}Destination: http://kvd/dav/{{}}\r\nOverwrite: {{}}\r\n"
        self.statuses(
            ("MOVE /dav/a.docx", to.format("b.tmp", "F"), None, 201),
            ("MOVE /dav/a.tmp", to.format("a.docx", "F"), None, 201),
            ("DELETE /dav/b.tmp", self.AGENT, None, 204),
        )
        assert [(Key(b"dav/a.docx"), b"new")] == [
            (key, self.value(key)) for key in self.keys()
        ]


class FinderTests(LockCase):
    """
    The client of macOS, as its exchanges are documented: a file is made, locked, sent
    in chunks and released; a file of its attributes is beside it.
    """

    AGENT = "User-Agent: WebDAVFS/3.0.0 (03008000) Darwin/23.0.0 (arm64)\r\n"
    QUOTA = (
        b'<?xml version="1.0" encoding="utf-8"?><D:propfind xmlns:D="DAV:"><D:prop>'
        b"<D:quota-available-bytes/><D:quota-used-bytes/></D:prop></D:propfind>"
    )

    def test_a_file_is_copied_to_a_volume(self) -> None:
        """
        It stays locked until all of it has come.
        """
        depth = self.AGENT + "Depth: 0\r\n"
        self.statuses(
            ("OPTIONS /dav/", self.AGENT, None, 200),
            ("PROPFIND /dav/", depth, self.QUOTA, 207),
            ("PROPFIND /dav/a.txt", depth, None, 404),
            ("PROPFIND /dav/._a.txt", depth, None, 404),
            ("PUT /dav/a.txt", self.AGENT, b"", 201),
        )
        fields = depth + "Timeout: Second-600\r\n"
        token = self.lock("/dav/a.txt", fields)
        head = (
            f"PUT /dav/a.txt HTTP/1.1\r\nHost: kvd\r\n{self.AGENT}{held(token)}"
            "X-Expected-Entity-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        assert 204 == status(self.ask(head.encode() + b"7\r\ncontent\r\n0\r\n\r\n"))
        self.statuses(
            ("LOCK /dav/a.txt", fields + held(token), None, 200),
            ("PUT /dav/._a.txt", self.AGENT, b"attributes", 201),
        )
        self.unlock("/dav/a.txt", token)
        assert b"content" == self.value(b"dav/a.txt")
        found = self.propfind("/dav/")
        assert ["/dav/", "/dav/._a.txt", "/dav/a.txt"] == sorted(found)
