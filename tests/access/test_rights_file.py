"""
Tests for `kvd.access.rights_file`: what it reads, and how it refuses the rest.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvd.access.passwords import MOST_MEMORY_KIB
from kvd.access.rights_file import MOST_BYTES, parse_rights, read_rights_file
from kvd.access.rules import NO_RULES, PrefixRules, Right
from kvd.access.tokens import token_digest
from kvd.errors import BadSetting

PASSWORD_HASH = (
    "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)
DIGEST = token_digest("kvd_one").hex()


def refusal(text: str) -> str:
    """
    The sentence with which a file with this text is refused.
    """
    with pytest.raises(BadSetting) as caught:
        parse_rights(text, "/etc/kvd-users.toml")
    sentence = caught.value.sentence
    assert "/etc/kvd-users.toml" in sentence
    return sentence


def test_rights_of_three_tables_are_joined() -> None:
    """
    A user has the rights of anybody, of every user, and the user's own.
    """
    rules = parse_rights(
        """
        [anonymous.rights]
        "/" = ["read"]
        "/secret/" = []
        [everyone.rights]
        "/home/{user}/" = ["write"]
        [users.ci.rights]
        "/secret/" = ["list"]
        "/home/" = ["delete"]
        """,
        "file",
    )
    rights = rules.users["ci"].principal.rights

    assert [
        Right.READ,
        Right.LIST,
        Right.READ | Right.DELETE,
        Right.READ | Right.WRITE | Right.DELETE,
        Right.READ | Right.DELETE,
    ] == [
        rights.of(key, Right.WRITE)
        for key in (b"key", b"secret/key", b"home/x", b"home/ci/x", b"home/cid/x")
    ]
    assert Right.READ == rules.anonymous.rights.of(b"home/ci/x", Right.WRITE)


def test_prefixes_end_at_slashes_and_are_decoded() -> None:
    """
    The prefix ``/c%61s/`` is ``/cas/``; the key ``cas`` is not below it.
    """
    rules = parse_rights(
        '[prefixes."/c%61s/"]\ncontent-addressed = true\nwrite-once = true', "file"
    )

    found = [rules.prefixes.of(key, NO_RULES) for key in (b"cas/a", b"cas", b"case/a")]

    assert [PrefixRules(True, True), NO_RULES, NO_RULES] == found


def test_a_listing_needs_the_right_for_all_that_it_names() -> None:
    """
    Who may not list ``/secret/`` may not list ``/``, but ``/public/``.
    """
    rules = parse_rights(
        '[anonymous.rights]\n"/" = ["list"]\n"/secret/" = ["read"]', "file"
    )
    may_below = rules.anonymous.may_below

    assert [False, False, True] == [
        may_below(Right.LIST, prefix) for prefix in (b"", b"secret/", b"public/")
    ]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[users.ci\n[x]", ["is not TOML", "line 1"]),
        ("x = " + "[" * 10_000, ["is not TOML", "nested too deep"]),
        ("[users.ci]\n[users.ci]", ["not TOML", "line 2"]),
        ("[user.ci]", ["user in", "(line 1)", "Did you mean 'users'?"]),
        ("\n[users.ci]\npasword = 'x'", ["(line 3)", "Did you mean 'password'?"]),
        ("users = 3", ["users in", "has to be a table"]),
        ("[users]\nci = 3", ["users.ci in", "(line 2)", "has to be a table"]),
        ("[users.'a/b']", ["users.'a/b'", "cannot be a user"]),
        ("[users.'..']", ["cannot be a user"]),
        ("[users.'{user}']", ["cannot be a user"]),
        (
            "[users.ci]\npassword = 'secret'",
            ["users.ci.password", "(line 2)", "Argon2"],
        ),
        ("[users.ci]\npassword = 3", ["has to be a string"]),
        (
            f"[users.ci]\npassword = '{PASSWORD_HASH}'".replace(
                "m=8", f"m={MOST_MEMORY_KIB + 1}"
            ),
            ["costs too much"],
        ),
        (
            f"[users.ci]\npassword = '{PASSWORD_HASH}'".replace("p=1", "p=2"),
            ["costs that Argon2 does not allow"],
        ),
        ("[users.ci.rights]\n'/' = 'read'", ["users.ci.rights.'/'", "an array"]),
        ("[users.ci.rights]\n'/' = [1]", ["an array of rights"]),
        ("[users.ci.rights]\n'/' = ['raed']", ["'raed'", "Did you mean 'read'?"]),
        ("[users.ci.rights]\n'/a' = []", ["'/a' is not a prefix", "(line 2)"]),
        ("[users.ci.rights]\n'/../' = []", ["is not a prefix"]),
        ("[users.ci.rights]\n'/%2e%2E/' = []", ["is not a prefix"]),
        ("[users.ci.rights]\n'/a%2Fb/' = []", ["is not a prefix"]),
        (
            "[users.ci.rights]\n'/a/' = []\n'/%61/' = []",
            ["(line 3)", "the same prefix"],
        ),
        ("[users.ci.rights]\n'/{user}s/' = []", ["a whole one"]),
        ("[everyone.rights]\n'/{user}s/' = []", ["a whole one"]),
        ("[anonymous.rights]\n'/{user}/' = []", ["no user's name"]),
        ("[prefixes.'/{user}/']", ["no user's name"]),
        ("[everyone.rights]\n'/{usr}/' = []", ["(line 2)", "only {user}", "%7B"]),
        ("[everyone.rights]\n'/{user}/x}/' = []", ["only {user}"]),
        ("[anonymous.rights]\n'/{name}/' = []", ["only {user}"]),
        ("[prefixes.'/{cas}/']", ["only {user}"]),
        ("[users.ci]\nrequests-per-second = true", ["a whole number from 1"]),
        ("[users.ci]\nrequests-per-second = 0", ["requests-per-second", "(line 2)"]),
        ("[anonymous]\npassword = ''", ["anonymous.password", "is unknown"]),
        (
            "[prefixes.'/']\nwrite-once = 1",
            ["prefixes.'/'.write-once", "true or false"],
        ),
        ("[prefixes.'/']\nwriteonce = true", ["Did you mean 'write-once'?"]),
        ("[[users.ci.tokens]]\nnote = 'x'", ["users.ci.tokens", "needs a sha256"]),
        (f"[[users.ci.tokens]]\nsha256 = '{DIGEST.upper()}'", ["in lower case"]),
        ("[users.ci]\ntokens = 3", ["has to be an array of tables"]),
        ("[users.ci]\ntokens = [3]", ["has to be a table"]),
        (
            f"[[users.ci.tokens]]\nsha256 = '{DIGEST}'\nexpires = '2027-01-01'",
            ["users.ci.tokens.expires", "without quotes"],
        ),
        (
            f"[[users.a.tokens]]\nsha256 = '{DIGEST}'\n"
            f"[[users.b.tokens]]\nsha256 = '{DIGEST}'",
            ["users.b.tokens", "a has it first"],
        ),
        ("[[users.ci.s3-keys]]\nid = 'short'", ["users.ci.s3-keys", "needs an id"]),
        (
            f"[[users.ci.s3-keys]]\nid = '{'K' * 20}'\nsecret = 'a blank {'s' * 40}'",
            ["users.ci.s3-keys", "needs a secret"],
        ),
        (
            f"[[users.a.s3-keys]]\nid = '{'K' * 20}'\nsecret = '{'s' * 40}'\n"
            f"[[users.b.s3-keys]]\nid = '{'K' * 20}'\nsecret = '{'t' * 40}'",
            ["users.b.s3-keys", "a has it first"],
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text: str, parts: list[str]) -> None:
    """
    A sentence says where in the file, and what would be right.
    """
    sentence = refusal(text)

    assert [] == [part for part in parts if part not in sentence], sentence


def test_no_error_repeats_a_hash() -> None:
    """
    The sentence goes to a terminal and to the log.
    """
    broken = PASSWORD_HASH.replace("$v=19", "")

    assert broken not in refusal(f"[users.ci]\npassword = '{broken}'")


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("1970-01-02", 2 * 86400.0),
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01T00:01:00", 60.0),
        ("1970-01-01T01:01:00+01:00", 60.0),
        # As people write "never".
        ("9999-12-31", 253402300800.0),
    ],
)
def test_tokens_expire(written: str, seconds: float) -> None:
    """
    A date is valid to its end; without a zone it is UTC.
    """
    rules = parse_rights(
        f"[[users.ci.tokens]]\nsha256 = '{DIGEST}'\nexpires = {written}", "file"
    )

    assert [seconds] == [token.expires for token in rules.tokens.values()]


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o644, 0o666])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    """
    And the sentence says how to mend it.
    """
    path = tmp_path / "users.toml"
    path.touch()
    path.chmod(mode)

    with pytest.raises(BadSetting, match=f"mode {mode:03o}.*chmod 600 {path}"):
        read_rights_file(str(path))


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660])
def test_a_group_may_read_it(tmp_path: Path, mode: int) -> None:
    """
    A file of root's may be read by the group of the daemon.
    """
    path = tmp_path / "users.toml"
    path.write_text("# é", encoding="utf-8")
    path.chmod(mode)

    assert "# é" == read_rights_file(str(path))


def test_what_is_no_text_file_is_refused(tmp_path: Path) -> None:
    """
    Nothing waits for a writer of a pipe, and nothing reads without an end.
    """
    pipe, binary, long = (tmp_path / name for name in ("pipe", "binary", "long"))
    os.mkfifo(pipe, 0o600)
    binary.write_bytes(b"\n\xff")
    long.write_bytes(b"#" * (MOST_BYTES + 1))
    for path in (binary, long):
        path.chmod(0o600)

    for path, wrong in {
        tmp_path / "none": "cannot be read: No such file",
        tmp_path: "Is a directory",
        pipe: "not a regular file",
        binary: r"not UTF-8 \(at line 2\)",
        long: "has more than",
    }.items():
        with pytest.raises(BadSetting, match=wrong):
            read_rights_file(str(path))
