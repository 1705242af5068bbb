"""
Tests for the keys for S3 of ``kvd user``.
"""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from kvd.access.rights_file import parse_rights, read_rights_file
from kvd.cli.user import user


def run(path: Path, *arguments: str, fails: bool = False) -> str:
    """
    What the command prints.
    """
    done = CliRunner().invoke(user, [*arguments, "--users", str(path)])
    assert fails == bool(done.exit_code), done.output
    return done.output


def test_keys_are_made_listed_and_removed(tmp_path: Path) -> None:
    """
    They are printed as aws-cli reads them, once; a list has no secret.
    """
    path = tmp_path / "users.toml"
    run(path, "add", "ci", "--no-password")
    printed = [
        run(path, "s3-key", "ci", "--note", "build", "--expires", "30d")
        for _ in range(2)
    ]
    keys = [dict(line.split(" = ") for line in text.splitlines()) for text in printed]
    names = [key["aws_access_key_id"] for key in keys]
    rules = parse_rights(read_rights_file(str(path)), "file")
    assert {key["aws_access_key_id"]: key["aws_secret_access_key"] for key in keys} == {
        name: key.secret for name, key in rules.access_keys.items()
    }
    assert all(key.expires for key in rules.access_keys.values())
    assert 0o600 == path.stat().st_mode & 0o777
    listed = run(path, "list")
    assert all(f"s3-key {name}, expires" in listed for name in names)
    assert not [key for key in keys if key["aws_secret_access_key"] in listed]
    assert not [key for key in rules.access_keys.values() if key.secret in repr(key)]

    run(path, "remove", "ci", "--s3-key", names[0])
    left = parse_rights(read_rights_file(str(path)), "file").access_keys
    assert [names[1]] == [*left]
    run(path, "remove", "ci", "--s3-key", names[0], fails=True)
    run(path, "remove", "ci", "--s3-key", names[1], "--token", "1", fails=True)
    run(path, "remove", "ci", "--s3-key", names[1])
    assert {} == parse_rights(read_rights_file(str(path)), "file").access_keys
