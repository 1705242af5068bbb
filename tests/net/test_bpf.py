"""
Tests for `kvd.net.bpf`.
"""

from __future__ import annotations

import errno
import os
import platform
from unittest import mock

import pytest

from kvd.net.bpf import Words, create_map, load
from tests.descriptors import Descriptors
from tests.dispatch.kernels import may_load


def test_a_machine_that_is_not_known_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The number of the system call is another there.
    """
    monkeypatch.setattr(platform, "machine", lambda: "vax")
    with pytest.raises(OSError, match=r"knows no bpf\(2\) on vax") as caught:
        create_map(8)

    assert "kvd knows no bpf(2) on vax" == caught.value.strerror


def test_what_is_no_program_is_refused() -> None:
    """
    By the kernel, whoever asks.
    """
    with pytest.raises(OSError, match="Errno"):
        load(bytes(8))


@pytest.mark.skipif(not may_load(), reason="maps take CAP_BPF")
def test_words_are_let_go_of() -> None:
    """
    With their descriptors.
    """
    opened = Descriptors("anon_inode:bpf")
    words = Words(3)
    words[2] = 7
    assert [0, 0, 7] == [words[at] for at in range(3)]
    assert opened.more

    words.close()
    assert 0 == opened.more


def test_words_that_cannot_be_mapped_are_not_left_open() -> None:
    """
    As where a process may have no more mappings.
    """
    opened = Descriptors("/memfd:")
    with (
        mock.patch("kvd.net.bpf.create_map", return_value=os.memfd_create("map")),
        mock.patch("mmap.mmap", side_effect=OSError(errno.ENOMEM, "no memory")),
        pytest.raises(OSError, match="no memory"),
    ):
        Words(3)

    assert 0 == opened.more
