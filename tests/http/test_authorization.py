"""
Tests for `kvd.http.authorization`: what each client may do, against what the rights
file says, with the fast path and without.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
from base64 import b64encode
from collections.abc import Mapping, Sequence
from itertools import product
from random import Random
from unittest import mock

import pytest
import tomlkit
from argon2 import PasswordHasher
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kvd.access import throttle
from kvd.access.counting import create_counting
from kvd.access.rights_file import parse_rights
from kvd.access.rules import AccessRules
from kvd.access.tokens import token_digest
from kvd.errors import BadSetting
from kvd.http.fast_path import native
from kvd.http.methods import same_value
from kvd.ipc.row import CLIENT_LEFT
from kvd.net.transport import ServerTransport
from kvd.settings import DialectChoice, Limits
from kvd.store.value import FileValue
from kvd.workers.http_server import CHECK_SECONDS
from tests.chance import new_seed
from tests.http.fast_path.both import Worker
from tests.http.fast_path.cases import get, put, without_date
from tests.stepped import Client, tcp_pair

CHEAP = PasswordHasher(1, 8, 1)
PASSWORD_HASH = CHEAP.hash("secret")

FILES = 12
REQUESTS = 70

RIGHTS = ["read", "write", "delete", "list"]
NEEDED = {"GET": "read", "HEAD": "read", "PUT": "write", "DELETE": "delete"}
SEGMENTS = ["a", "b", "ab", "home", "ci", "bob", "x.y", "~"]
USERS = ["ci", "bob"]

Table = Mapping[str, Sequence[str]]


def basic(user: str, password: str) -> bytes:
    """
    A field line.
    """
    pair = b64encode(f"{user}:{password}".encode())
    return b"Authorization: Basic " + pair + b"\r\n"


def bearer(token: str) -> bytes:
    """
    Likewise.
    """
    return f"Authorization: Bearer {token}\r\n".encode()


def status(reply: bytes) -> int:
    """
    Of the last reply that came; there may be a 100 before it.
    """
    return int(re.findall(rb"HTTP/1\.1 (\d{3}) ", reply)[-1])


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
DELETE = b"DELETE /once/k HTTP/1.1\r\nHost: kvd\r\n\r\n"


class Chance:
    """
    Rights files and requests as they come.
    """

    def __init__(self, random: Random) -> None:
        self._random = random

    def table(self, more: Sequence[str] = ()) -> dict[str, list[str]]:
        """
        Rights by prefix.
        """
        random = self._random
        return {
            self.prefix(more): random.sample(RIGHTS, random.randint(0, 4))
            for _ in range(random.randint(0, 4))
        }

    def prefix(self, more: Sequence[str] = ()) -> str:
        """
        As in the file.
        """
        parts = self._random.choices([*SEGMENTS, *more], k=self._random.randint(0, 3))
        return "/" + "".join(f"{part}/" for part in parts)

    def key(self) -> str:
        """
        Decoded.
        """
        return "/".join(self._random.choices(SEGMENTS, k=self._random.randint(1, 4)))

    def spelled(self, path: str) -> str:
        """
        The same path, as a client might write it to be taken for another.
        """
        random = self._random
        if random.random() < 0.6:
            return path
        letters = [
            f"%{ord(letter):02{random.choice('xX')}}"
            if letter != "/" and random.random() < 0.3
            else letter
            for letter in path
        ]
        written = "".join(letters)
        return f"./{written}" if random.random() < 0.3 else written


def rights_by_hand(table: Table, path: str, user: str) -> set[str]:
    """
    What a table gives: looked up prefix by prefix, the longest first.
    """
    by_prefix = {p.replace("{user}", user): names for p, names in table.items()}
    parts = path.split("/")[:-1]
    for count in range(len(parts), -1, -1):
        prefix = "/" + "".join(f"{part}/" for part in parts[:count])
        if prefix in by_prefix:
            return set(by_prefix[prefix])
    return set()


def all_rights(file: Mapping[str, Table], path: str, user: str | None) -> set[str]:
    """
    What a client has: of `file`, the tables of anybody, of every user, of the user.
    """
    tables = ["anonymous"] if user is None else ["anonymous", "everyone", user]
    rights: set[str] = set()
    for name in tables:
        rights |= rights_by_hand(file[name], path, user or "")
    return rights


def may_list(file: Mapping[str, Table], prefix: str, user: str | None) -> bool:
    """
    Whether a client may list all that a listing would name.
    """
    tables = ["anonymous"] if user is None else ["anonymous", "everyone", user]
    below = [prefix] + [
        place[1:]
        for name in tables
        for written in file[name]
        for place in [written.replace("{user}", user or "")]
        if place[1:].startswith(prefix)
    ]
    return all("list" in all_rights(file, path, user) for path in below)


@pytest.mark.untraced
class RandomRightsTests(SynchronousTestCase):
    """
    Every method, prefix and user, at random.
    """

    files = FILES
    has_fast_path = native is not None

    @mock.patch.object(throttle, "FREE_FAILURES", 10**6)
    def test_clients_may_do_what_the_file_says(self) -> None:
        """
        No more and no less, whoever asks and however the key is spelled; and both ways
        answer the same.
        """
        random = Random(new_seed())
        served = sum(self.compare(random) for _ in range(self.files))

        assert not self.has_fast_path or served > FILES

    def make_workers(self, rules: AccessRules) -> list[Worker]:
        """
        Those that reply the same.
        """
        return [
            Worker(fast_path=fast_path, durability="process", rules=rules)
            for fast_path in (True, False)
        ]

    def compare(self, random: Random) -> int:
        """
        One file, and many requests.

        Returns:
            How many the fast path served.
        """
        chance = Chance(random)
        file: dict[str, Table] = {
            "anonymous": chance.table(),
            "everyone": chance.table(["{user}"] * 3),
            **{user: chance.table(["{user}"]) for user in USERS},
        }
        text = tomlkit.dumps(
            {
                "anonymous": {"rights": file["anonymous"]},
                "everyone": {"rights": file["everyone"]},
                "users": {
                    user: {
                        "rights": file[user],
                        "password": PASSWORD_HASH,
                        "tokens": [{"sha256": token_digest(f"kvd_{user}").hex()}],
                    }
                    for user in USERS
                },
            }
        )
        try:
            rules = parse_rights(text, "file")
        except BadSetting:
            # {user} is another folder's name.
            return self.compare(random)
        workers = self.make_workers(rules)
        try:
            done: list[bytes] = []
            for _ in range(REQUESTS):
                if done and random.random() < 0.2:
                    # Again, as the fast path may know it.
                    request, expected = random.choice(done), None
                else:
                    request, expected = self.request(random, chance, file)
                    done.append(request)
                # The body may come later, in pieces.
                cut = len(request) - random.choice([0, 0, 0, 5, 2])
                for worker in workers:
                    worker.connect(request[:cut])
                    if request[cut:] and not worker._clients[-1].ended:
                        worker.send(0, request[cut:])
                    found = status(worker._replies[-1])
                    if expected is not None:
                        assert expected == (found if found in (401, 403) else 200), (
                            text,
                            request,
                            found,
                        )
            outcomes = [worker.end() for worker in workers]
            assert all(outcome == outcomes[0] for outcome in outcomes), text
            watched = workers[0].watched
            return 0 if watched is None else watched.served
        finally:
            for worker in workers:
                worker.clean_up()

    def request(
        self, random: Random, chance: Chance, file: Mapping[str, Table]
    ) -> tuple[bytes, int]:
        """
        A request, and 401, 403, or 200 for whatever else it may be answered.
        """
        user, field = random.choice(
            [
                (None, b""),
                (None, b""),
                *((user, basic(user, "secret")) for user in USERS),
                *((user, bearer(f"kvd_{user}")) for user in USERS),
                ("ci", basic("ci", "kvd_ci")),
                ("", basic("ci", "guess")),
                ("", basic("ci", "kvd_bob")),
                ("", bearer("kvd_guess")),
                ("", b"Authorization: Digest x\r\n"),
            ]
        )
        method = random.choice(["GET", "GET", "HEAD", "PUT", "PUT", "DELETE", "LIST"])
        body = b""
        if method == "LIST":
            path = chance.prefix()[1:]
            allowed = user != "" and may_list(file, path, user)
            method = "GET"
        else:
            path = chance.key()
            allowed = user != "" and NEEDED[method] in all_rights(file, path, user)
            body = b"value" if method == "PUT" else b""
        length = b"Content-Length: 5\r\n" if body else b""
        expect = random.choice([b"", b"", b"Expect: 100-continue\r\n"]) if body else b""
        head = f"{method} /{chance.spelled(path)} HTTP/1.1\r\nHost: kvd\r\n".encode()
        expected = 200 if allowed else 403 if user else 401
        return head + field + length + expect + b"\r\n" + body, expected


class AuthorizationCase(SynchronousTestCase):
    """
    One worker with a rights file.
    """

    text = ""

    def setUp(self) -> None:
        rules = parse_rights(self.text, "file")
        self.worker = self.make_worker(rules)
        self.addCleanup(self.worker.clean_up)
        self.addCleanup(self.worker.end)

    def make_worker(self, rules: AccessRules) -> Worker:
        """
        What replies.
        """
        return Worker(fast_path=False, durability="process", rules=rules, reports=False)

    def ask(self, request: bytes, body: bytes = b"") -> bytes:
        """
        What is replied.
        """
        self.worker.connect(request)
        if body:
            self.worker.send(0, body)
        return self.worker._replies[-1]

    def place(self, key: str, value: bytes) -> None:
        """
        Another program stores a value.
        """
        self.worker.place(key, value)


class RefusalTests(AuthorizationCase):
    """
    What a client learns from a refusal.
    """

    text = f"""
    [anonymous.rights]
    "/public/" = ["read"]
    [users.ci]
    password = "{PASSWORD_HASH}"
    rights = {{ "/drop/" = ["write"], "/public/" = ["write"] }}
    [[users.ci.tokens]]
    sha256 = "{token_digest("kvd_old").hex()}"
    expires = 1970-01-01T00:16:40Z
    """

    def test_absent_and_forbidden_look_the_same(self) -> None:
        """
        Conditions, ranges and methods tell nothing of a key that may not be read.
        """
        self.ask(put("drop/there", b"value", basic("ci", "secret")))
        questions = [
            b"",
            b"Range: bytes=9-\r\n",
            b"If-Match: *\r\n",
            b"If-None-Match: *\r\n",
            b"If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n",
        ]
        for who in (b"", basic("ci", "secret")):
            for fields in questions:
                replies = {
                    without_date(self.ask(get(key, who + fields)))
                    for key in ("drop/there", "drop/none", "drop", "drop/there/below")
                }

                assert 1 == len(replies), replies
                assert status(replies.pop()) == (403 if who else 401)

    def test_the_body_is_not_asked_for(self) -> None:
        """
        A refusal comes in place of 100, and before the body.
        """
        lines = b"PUT /other HTTP/1.1\r\nHost: kvd\r\nContent-Length: 5\r\n"
        expect = b"Expect: 100-continue\r\n\r\n"
        for who, right in ((b"", 401), (basic("ci", "secret"), 403)):
            reply = self.ask(lines + who + expect)

            assert b" 100 " not in reply
            assert right == status(reply)
        assert b" 100 " in self.ask(
            lines.replace(b"other", b"drop/x") + basic("ci", "secret") + expect
        )

    def test_a_401_names_the_ways_to_authenticate(self) -> None:
        """
        Whatever may be sent stands in its challenges.
        """
        reply = self.ask(get("other"))

        assert b'WWW-Authenticate: Basic realm="kvd", charset="UTF-8"\r\n' in reply
        assert b'WWW-Authenticate: Bearer realm="kvd"\r\n' in reply
        assert b"WWW-Authenticate" not in self.ask(get("other", basic("ci", "secret")))

    def test_credentials_in_the_query_are_refused(self) -> None:
        """
        They would end up in logs; the reply does not repeat them.
        """
        for query in (
            "access_token=hidden",
            "api-key=hidden",
            "limit=3&token=hidden",
            "%54oken=hidden",
            "api-key=&apikey=hidden",
        ):
            reply = self.ask(get(f"public/?{query}"))

            assert 400 == status(reply)
            assert b"Authorization" in reply
            assert b"hidden" not in reply
        assert 404 == status(self.ask(get("public/x?teamId=hidden")))

    def test_wrong_credentials_are_refused_where_none_are_needed(self) -> None:
        """
        The operator of a build learns that its password is wrong.
        """
        assert 404 == status(self.ask(get("public/x")))
        assert 404 == status(self.ask(get("public/x", basic("ci", "secret"))))
        assert 401 == status(self.ask(get("public/x", basic("ci", "guess"))))
        options = b"OPTIONS /public/x HTTP/1.1\r\nHost: kvd\r\n"
        assert 204 == status(self.ask(options + b"\r\n"))
        assert 204 == status(self.ask(options + basic("ci", "secret") + b"\r\n"))
        assert 401 == status(self.ask(options + basic("ci", "guess") + b"\r\n"))

    def test_a_token_expires_between_two_requests(self) -> None:
        """
        The same head is refused from then on.
        """
        request = get("drop/k", bearer("kvd_old"))
        with mock.patch("time.time") as now:
            now.return_value = 999.0
            assert [403, 403] == [status(self.ask(request)) for _ in range(2)]
            request = put("drop/k", b"value", bearer("kvd_old"))
            assert [201, 204] == [status(self.ask(request)) for _ in range(2)]
            now.return_value = 1000.0
            assert [401, 401] == [status(self.ask(request)) for _ in range(2)]

    def test_a_certificate_names_a_user(self) -> None:
        """
        Unless the request has credentials. Whom the file does not know is nobody.
        """
        with mock.patch.object(ServerTransport, "peer_user", "ci"):
            assert 201 == status(self.ask(put("drop/k", b"value")))
            assert 403 == status(self.ask(get("drop/k")))
            assert 401 == status(self.ask(get("drop/k", basic("ci", "guess"))))
        with mock.patch.object(ServerTransport, "peer_user", "nobody"):
            assert 401 == status(self.ask(put("drop/k", b"value")))
            assert 404 == status(self.ask(get("public/k")))

    def test_a_client_that_waits_may_leave(self) -> None:
        """
        Nothing is left of it, and the worker goes on.
        """
        for number in range(throttle.FREE_FAILURES + 3):
            reply = self.ask(get("x", basic("ci", f"guess {number}")))
            assert bool(reply) == (number < throttle.FREE_FAILURES)
        self.worker.leave(0)
        # Each has its turn when the one before it has ended.
        for _ in range(3):
            self.worker.wait(0.5)
        assert 401 == status(self.ask(get("x")))

    def test_a_client_that_leaves_before_its_refusal_has_no_connection(self) -> None:
        """
        It would keep it for up to a minute. Others have their refusal no sooner.
        """
        rules = parse_rights(self.text, "file")
        asked = get("x", basic("ci", "guess"))
        for secure, ahead in product((False, True), (b"", b"GET /")):
            worker = Worker(
                fast_path=True, durability="process", rules=rules, secure=secure
            )
            self.addCleanup(worker.clean_up)
            with mock.patch.object(throttle, "MOST_ATTEMPTS", 0):
                for _ in range(6):
                    worker.connect(asked + ahead)
            connections = worker._server.process.connections
            assert 6 == len(connections)
            worker._clients[1].half_close()
            for number in (0, 2, 4):
                worker._clients[number].ended = True
                worker._clients[number].close()
            # What was sent ahead hides the end of the stream until the next look.
            worker.wait(CHECK_SECONDS if ahead else 0.0)
            assert 2 == len(connections)

            worker.wait(throttle.REFUSAL_SECONDS)
            worker.wait(len(worker._clients) * throttle.REFUSAL_GAP_SECONDS)
            for number in (3, 5):
                assert b" 429 " in worker._clients[number].receive()
            logged = [entry["status"] for entry in worker.entries()]
            assert [CLIENT_LEFT] * 4 + [429] * 2 == logged
            worker.end()

    def test_a_drain_does_not_wait_for_refusals(self) -> None:
        """
        Those that were not due yet, and those of requests that come meanwhile, are sent
        at once.
        """
        wrong = get("x", basic("ci", "guess"))
        worker = self.worker
        with mock.patch.object(throttle, "MOST_ATTEMPTS", 0):
            for _ in range(3):
                worker.connect(wrong)
            worker.connect(b"")
            worker._server.drain(30.0)
            worker._clients[-1].send(wrong)
            worker.wait(0.0)
        for client in worker._clients[-4:]:
            reply = client.receive()
            assert 429 == status(reply)
            assert b"Connection: close" in reply

    def test_a_client_that_leaves_before_its_refusal_has_the_replies_before(
        self,
    ) -> None:
        """
        All of them, though it has read next to nothing and the kernel holds the rest:
        it is not reset.
        """
        large = put("public/large", bytes(60_000), basic("ci", "secret"))
        assert 201 == status(self.ask(large))
        for ahead in (b"", b"GET /"):
            worker = self.worker
            near, far = tcp_pair(window=4096)
            client = Client(worker._reactor, far)
            self.addCleanup(far.close)
            wrong = get("x", basic("ci", "guess"))
            far.sendall(get("public/large") + wrong + ahead)
            connections = worker._server.process.connections
            before = len(connections)
            with mock.patch.object(throttle, "MOST_ATTEMPTS", 0):
                worker.adopt(near)
                worker._reactor.settle()
            assert before + 1 == len(connections)
            client.half_close()
            worker.wait(CHECK_SECONDS)

            reply = client.receive_until(lambda _: False)
            assert not client.reset
            assert reply.endswith(b"\r\n\r\n" + bytes(60_000))
            worker.wait(CHECK_SECONDS)
            assert before == len(connections)


class PrefixRulesTests(AuthorizationCase):
    """
    What holds for all values below a prefix.
    """

    text = """
    [anonymous.rights]
    "/" = ["read", "write", "delete"]
    [prefixes."/cas/"]
    content-addressed = true
    [prefixes."/once/"]
    write-once = true
    """

    def test_nobody_can_poison_a_content_addressed_prefix(self) -> None:
        """
        A value that is another one's is not stored, nor any that has no digest's name.
        """
        digest = hashlib.sha256(b"value").hexdigest()

        assert 201 == status(self.ask(put(f"cas/{digest}", b"value")))
        assert 201 == status(self.ask(put(f"cas/a/{digest}", b"value")))
        for key in (f"cas/{digest}", f"cas/b/{digest}"):
            reply = self.ask(put(key, b"other"))
            assert 400 == status(reply)
            assert hashlib.sha256(b"other").hexdigest().encode() in reply
        for key in ("cas/x", f"cas/{digest.upper()}", f"cas/{digest}/x", "c%61s/x"):
            reply = self.ask(put(key, b"value", b"Expect: 100-continue\r\n"))
            assert 400 == status(reply)
            assert b" 100 " not in reply
        encoded = put(f"cas/{digest}", b"value", b"Content-Encoding: gzip\r\n")
        reply = self.ask(encoded)
        assert 400 == status(reply)
        assert b"Content-Encoding" in reply
        assert b"value" == self.ask(get(f"cas/{digest}"))[-5:]
        assert 404 == status(self.ask(get(f"cas/b/{digest}")))

    def test_a_value_is_written_once(self) -> None:
        """
        The same again is no fault; another one is refused, before its body if its
        length tells.
        """
        expect = b"Expect: 100-continue\r\n"

        assert 201 == status(self.ask(put("once/k", b"value")))
        assert 204 == status(self.ask(put("once/k", b"value")))
        assert 204 == status(self.ask(put("once/k", b"value", expect)))
        reply = self.ask(put("once/k", b"other", expect)[:-5], b"other")
        assert b" 100 " in reply
        assert 409 == status(reply)
        assert b" 100 " not in self.ask(put("once/k", b"longer", expect))
        assert 409 == status(self.ask(put("once/k", b"longer")))
        assert 409 == status(self.ask(put("once/k", b"")))
        assert b"value" == self.ask(get("once/k"))[-5:]

        chunked = b"PUT /once/k HTTP/1.1\r\nHost: kvd\r\n" + CHUNKED
        with mock.patch.object(same_value, "_digest_of") as read:
            assert 409 == status(self.ask(chunked + b"6\r\nlonger\r\n0\r\n\r\n"))
        # A byte must not make kvd read a long value.
        assert not read.called
        assert 204 == status(self.ask(chunked + b"5\r\nvalue\r\n0\r\n\r\n"))
        assert 204 == status(self.ask(DELETE))
        assert 201 == status(self.ask(put("once/k", b"other")))

    def test_what_is_said_about_a_value_is_written_once_too(self) -> None:
        """
        With another type or encoding, a reader would take it for another value.
        """
        kind = b"Content-Type: text/plain\r\n"
        other = b"Content-Type: text/html\r\n" + b"Expect: 100-continue\r\n"

        assert 201 == status(self.ask(put("once/k", b"value", kind)))
        assert 204 == status(self.ask(put("once/k", b"value", kind)))
        reply = self.ask(put("once/k", b"value", other))
        assert 409 == status(reply)
        assert b" 100 " not in reply
        for fields in (b"", kind + b"Content-Encoding: gzip\r\n"):
            assert 409 == status(self.ask(put("once/k", b"value", fields)))
        assert kind in self.ask(get("once/k"))

    def test_conditions_of_what_is_written_once(self) -> None:
        """
        The client's own conditions come first, with their own status.
        """
        once = b"If-None-Match: *\r\n"
        tag = re.search(rb'ETag: ("\w+")', self.ask(put("once/k", b"value", once)))
        assert tag is not None
        match = b"If-Match: %b\r\n"

        assert 412 == status(self.ask(put("once/k", b"value", once)))
        assert 412 == status(self.ask(put("once/k", b"value", match % b'"x"')))
        assert 409 == status(self.ask(put("once/k", b"other", match % tag[1])))
        assert 204 == status(self.ask(put("once/k", b"value", match % tag[1])))

    def test_long_values_are_compared_in_turns(self) -> None:
        """
        Others are served meanwhile, and a difference in the last byte counts.
        """
        value = b"a" * 50_000
        self.place("once/k", value + b"b")
        with mock.patch.object(same_value, "SLICE_BYTES", 10_000):
            assert 204 == status(self.ask(put("once/k", value + b"b")))
            assert 409 == status(self.ask(put("once/k", value + b"c")))

    def test_a_connection_may_break_while_its_value_is_compared(self) -> None:
        """
        The rest is not read, and neither the value stays open nor the upload.
        """
        value = b"a" * 50_000
        self.place("once/k", value)
        self.ask(put("once/other", b"value"))
        descriptors = len(os.listdir("/proc/self/fd"))
        with mock.patch.object(same_value, "SLICE_BYTES", 10):
            assert b"" == self.ask(put("once/k", value))
            assert descriptors + 2 < len(os.listdir("/proc/self/fd"))
            for connection in list(self.worker._server.process.connections):
                connection.abort()
            self.worker.wait(0)
        # But for the clients' ends.
        assert descriptors + 1 >= len(os.listdir("/proc/self/fd"))


class SlowStoreTests(AuthorizationCase):
    """
    A value that is to be written once is compared with one that comes slowly.
    """

    text = """
    [anonymous.rights]
    "/" = ["read", "write"]
    [prefixes."/once/"]
    write-once = true
    """

    def test_a_read_for_a_comparison_ends_with_its_connection(self) -> None:
        """
        An engine may not answer for long.
        """
        self.place("once/k", b"value")
        left: list[Deferred[bytes]] = []
        answer: Deferred[bytes] = Deferred(left.append)
        with (
            mock.patch.object(FileValue, "fileno", return_value=None),
            mock.patch.object(FileValue, "read", return_value=answer),
        ):
            assert b"" == self.ask(put("once/k", b"value"))
            assert [] == left
            for connection in list(self.worker._server.process.connections):
                connection.abort()
            self.worker.wait(0)
        assert [answer] == left


class OtherRightsTests(SynchronousTestCase):
    """
    The rights file changes while clients are connected.
    """

    def rules(self, token: str, rights: str) -> AccessRules:
        """
        What a user may do, and with what.
        """
        return parse_rights(
            f"""
            [users.ci]
            tokens = [{{sha256 = "{token_digest(token).hex()}"}}]
            rights = {rights}
            """,
            "file",
        )

    def test_they_hold_for_each_request_that_comes(self) -> None:
        """
        On a connection that stays, whichever way its requests go, and also where two
        come together. A body that is under way goes on, and the log says whose.
        """
        ci, new = bearer("kvd_ci"), bearer("kvd_new")
        everything = '{ "/" = ["read", "write"] }'
        upload = put("k", bytes(9000), ci)
        for fast_path in (True, False):
            worker = Worker(
                fast_path=fast_path,
                durability="process",
                rules=self.rules("kvd_ci", everything),
            )
            self.addCleanup(worker.clean_up)
            worker.connect(put("k", b"v", ci))
            for _ in range(3):
                worker.send(0, get("k", ci))
            worker.connect(upload[:-5000])
            assert 200 == status(worker._replies[0])
            served = 0 if worker.watched is None else worker.watched.served
            assert (served > 0) == (fast_path and native is not None)

            self.adopt(worker, self.rules("kvd_new", everything))
            worker.send(1, get("k", ci))
            assert 401 == status(worker._replies[0])
            worker.send(1, get("k", ci) + get("k", ci))
            found = re.findall(rb"HTTP/1\.1 (\d{3}) ", worker._replies[0])
            assert [b"401"] * 2 == found[-2:]
            worker.send(1, get("k", new))
            assert 200 == status(worker._replies[0])

            self.adopt(worker, self.rules("kvd_new", "{}"))
            worker.send(1, get("k", new))
            assert 403 == status(worker._replies[0])

            worker.send(0, upload[-5000:])
            assert 201 <= status(worker._replies[1]) <= 204
            entries = map(json.loads, worker.end().entries)
            found = [each["user"] for each in entries if each["method"] == "PUT"]
            assert ["ci", "ci"] == found

    def test_the_first_ones_count_whom_a_certificate_names(self) -> None:
        """
        On a connection that the fast path served for anybody before, where everybody
        may do what it asks for, too.
        """
        rules = parse_rights(
            """
            [anonymous.rights]
            "/" = ["read"]
            [users.ci]
            requests-per-second = 1
            """,
            "file",
        )
        for secure in (False, True):
            worker = Worker(fast_path=True, durability="process", secure=secure)
            self.addCleanup(worker.clean_up)
            with mock.patch.object(ServerTransport, "peer_user", "ci"):
                worker.connect(put("k", b"v"))
                for _ in range(3):
                    worker.send(0, get("k"))
                worker.connect(put("other", bytes(9000))[:-5000])
                self.adopt(worker, rules)
                for _ in range(3):
                    worker.send(1, get("k"))
                found = re.findall(rb"HTTP/1\.1 (\d{3}) ", worker._replies[0])
                assert [b"201", *[b"200"] * 4, *[b"429"] * 2] == found
                worker.send(0, bytes(5000))
                assert 201 == status(worker._replies[1])
                worker._server.adopt_no_rules()
                for _ in range(3):
                    worker.send(1, get("k"))
                assert 200 == status(worker._replies[0])
                worker.end()

    def adopt(self, worker: Worker, rules: AccessRules) -> None:
        """
        As the message from the supervisor does.
        """
        counting = create_counting(1)
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with near, far:
            worker._server.adopt_rules(rules, counting, near.fileno())
        os.close(counting)

    def test_the_first_ones_hold_as_well_and_so_does_their_end(self) -> None:
        """
        On a connection that stays, whichever way its requests go. What began when
        everything was permitted goes on.
        """
        ci, one = bearer("kvd_ci"), self.rules("kvd_ci", '{ "/" = ["read"] }')
        upload = put("k", bytes(9000))
        asked = b'<propfind xmlns="DAV:"><allprop/></propfind>'
        propfind = (
            b"PROPFIND /dav/ HTTP/1.1\r\nHost: kvd\r\nDepth: 1\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(asked), asked)
        )
        for fast_path, limits in product((True, False), (False, True)):
            worker = Worker(
                fast_path=fast_path,
                durability="process",
                dialects=(DialectChoice("/dav/", "webdav"),),
                limits=Limits(address_connections=100) if limits else Limits(),
            )
            self.addCleanup(worker.clean_up)
            worker.connect(put("k", b"v"))
            for _ in range(3):
                worker.send(0, get("k"))
            worker.connect(upload[:-5000])
            worker.connect(propfind[:-5])
            assert 200 == status(worker._replies[0])

            self.adopt(worker, one)
            worker.send(2, get("k"))
            assert 401 == status(worker._replies[0])
            worker.send(2, get("k", ci))
            assert 200 == status(worker._replies[0])
            worker.send(1, upload[-5000:])
            assert 201 <= status(worker._replies[1]) <= 204
            worker.send(0, propfind[-5:])
            assert worker._replies[2].startswith(b"HTTP/1.1 207 ")
            for request in (put("other", b"v"), put("other", b"v", ci), propfind):
                worker.connect(request)
                assert status(worker._replies[-1]) in (401, 403)
            assert not os.path.exists(os.path.join(worker.root, "other"))
            worker._server.adopt_no_rules()
            worker.connect(put("other", b"v"))
            assert 201 == status(worker._replies[-1])
            self.adopt(worker, one)
            worker.connect(get("k"))
            assert 401 == status(worker._replies[-1])
            worker.end()

    def test_who_cannot_apply_them_serves_nobody(self) -> None:
        """
        Rather than everybody, or by rules that hold no more; until it can.
        """
        rules = self.rules("kvd_ci", '{ "/" = ["read"] }')
        for fast_path, before in product((True, False), (None, rules)):
            worker = Worker(fast_path=fast_path, durability="process", rules=before)
            self.addCleanup(worker.clean_up)
            with open(os.path.join(worker.root, "k"), "wb") as file:
                file.write(b"v")
            worker.connect(b"")
            for _ in range(3):
                worker.send(0, get("k", bearer("kvd_ci")))
            assert 200 == status(worker._replies[0])

            worker._server.close_to_all()
            worker.send(0, get("k", bearer("kvd_ci")))
            assert 503 == status(worker._replies[0])
            worker.connect(put("k", b"other"))
            assert 503 == status(worker._replies[1])
            self.adopt(worker, rules)
            worker.connect(get("k", bearer("kvd_ci")))
            assert 200 == status(worker._replies[2])
            worker.end()


class LogTests(SynchronousTestCase):
    """
    The access log says who has sent a request.
    """

    def test_users_are_in_the_log(self) -> None:
        """
        By their credentials, whoever serves the request, and whatever it is answered;
        ``-`` is a client without credentials, or with wrong ones.
        """
        rules = parse_rights(
            f"""
            [anonymous.rights]
            "/" = ["read"]
            [users.ci]
            password = "{PASSWORD_HASH}"
            tokens = [{{sha256 = "{token_digest("kvd_ci").hex()}"}}]
            rights = {{ "/" = ["write"] }}
            """,
            "file",
        )
        ci, password, wrong = bearer("kvd_ci"), basic("ci", "secret"), bearer("kvd_no")
        requests = [
            *[get("k"), get("k", ci), put("k", b"v", ci), put("k", b"v", password)] * 3,
            *[put("k", b"v"), get("k", wrong), get("k", basic("ci", "no"))],
            b"DELETE /k HTTP/1.1\r\nHost: kvd\r\n" + ci + b"\r\n",
            # Its body comes in pieces, or not at all.
            put("k", bytes(9000), ci)[:-5000],
        ]
        users = [*["-", "ci", "ci", "ci"] * 3, "-", "-", "-", "ci", "ci"]
        for fast_path in (True, False):
            worker = Worker(fast_path=fast_path, durability="process", rules=rules)
            self.addCleanup(worker.clean_up)
            for request in requests:
                worker.connect(request)
            served = 0 if worker.watched is None else worker.watched.served
            entries = map(json.loads, worker.end().entries)
            found = [[entry["user"] or "-", entry["method"]] for entry in entries]

            # They are sorted, and so by method.
            methods = [request.split()[0].decode() for request in requests]
            expected = zip(users, methods, strict=True)
            assert sorted(map(list, expected)) == sorted(found)
            assert (served > 0) == (fast_path and native is not None)
