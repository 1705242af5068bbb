"""
Counts, sizes and times as an operator writes them.
"""

import pytest

from kvd.errors import BadSetting
from kvd.model.quantities import Count, Seconds, Size, format_seconds, format_size

size = Size(1, 1024**4)
seconds = Seconds(most=7 * 86400)
count = Count("a number of workers", 0, 4096)


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (1, "1"),
        (16384, "16384"),
        (16384, "16KiB"),
        (16384, "16kib"),
        (16384, "16 KiB"),
        (16384, "16k"),
        (16384, "16K"),
        (16000, "16kB"),
        (16000, "16KB"),
        (100, "100B"),
        (3 * 1024**2, "3M"),
        (3 * 10**6, "3MB"),
        (2 * 1024**3, "2GiB"),
        (1024**4, "1T"),
    ],
)
def test_sizes_take_units(expected: int, text: str) -> None:
    """
    Plain bytes and all units are understood, in either case.
    """
    assert expected == size(text)


@pytest.mark.parametrize(
    "text",
    ["", "k", "-1", "+1", "1.5k", "1_000", "0x10", "16 kilo", "1iB", "1 ", "²", "٣"],
)
def test_what_is_no_size_is_refused(text: str) -> None:
    """
    Other texts are quoted, and the error shows valid examples.
    """
    with pytest.raises(BadSetting, match=r"is not a size: .* 16KiB") as caught:
        size(text)

    assert repr(text) in caught.value.sentence


@pytest.mark.parametrize("text", ["0", "2T", "999999999999999999T"])
def test_sizes_have_bounds(text: str) -> None:
    """
    A size that is too small or too large is answered with the bounds.
    """
    with pytest.raises(BadSetting, match="from 1B to 1TiB"):
        size(text)


@pytest.mark.parametrize(
    ("expected", "bytes_"),
    [
        ("0B", 0),
        ("1000B", 1000),
        ("16KiB", 16384),
        ("1MiB", 1024**2),
        ("5TiB", 5 << 40),
    ],
)
def test_sizes_are_formatted_with_the_largest_unit(expected: str, bytes_: int) -> None:
    """
    A size in a message is as short as possible without rounding.
    """
    assert expected == format_size(bytes_)


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (10.0, "10"),
        (10.0, "10.0"),
        (0.5, "0.5"),
        (0.25, "250ms"),
        (10.0, "10s"),
        (10.0, "10 s"),
        (300.0, "5m"),
        (300.0, "5min"),
        (3600.0, "1h"),
        (604800.0, "7d"),
    ],
)
def test_times_take_units(expected: float, text: str) -> None:
    """
    Plain seconds and all units are understood.
    """
    assert expected == seconds(text)


@pytest.mark.parametrize(
    "text",
    ["", "s", "0", "0s", "-1", "nan", "inf", "1e3", "1y", ".5", "5.", "8d", "1h30m"],
)
def test_invalid_times_are_refused(text: str) -> None:
    """
    Zero, negative and infinite times are quoted, with valid examples.
    """
    with pytest.raises(BadSetting, match=r"seconds above 0, .*7d") as caught:
        seconds(text)

    assert repr(text) in caught.value.sentence


@pytest.mark.parametrize(
    ("expected", "seconds"),
    [("7d", 604800), ("1h", 3600), ("90m", 5400), ("1m", 60), ("61s", 61)],
)
def test_times_are_formatted_with_the_largest_unit(
    expected: str, seconds: float
) -> None:
    """
    The largest unit that keeps them whole.
    """
    assert expected == format_seconds(seconds)


def test_counts_are_whole_numbers_within_bounds() -> None:
    """
    Both bounds are permitted.
    """
    assert [0, 4, 4096] == [count("0"), count("4"), count("4096")]


@pytest.mark.parametrize("text", ["", "-1", "many", "4097", "1.0", "٣", "9" * 5000])
def test_other_counts_are_refused(text: str) -> None:
    """
    The sentence says what is counted, and the bounds.
    """
    with pytest.raises(BadSetting, match=r"is not a number of workers: .* 0 to 4096"):
        count(text)
