"""
Tests for `kvd.http.guessing`.
"""

from kvd.http.guessing import ending_of, guess_type


def test_the_end_of_a_key_says_the_type() -> None:
    """
    In any case of letters, and only that of its last segment.
    """
    for key, expected in (
        (b"index.html", "text/html"),
        (b"a/b.tar.gz", "application/gzip"),
        (b"PHOTO.JPG", "image/jpeg"),
        (b".json", "application/json"),
        (b"a.html/b", None),
        (b"html", None),
        (b"a.", None),
        (b"a.unknown", None),
        (b"a." + b"x" * 200, None),
        (b"", None),
    ):
        assert expected == guess_type(key), key
        assert expected == guess_type(ending_of(key)), key
