"""
The type of a value by the end of its key (``--guess-types``).

The table is kvd's own: it is the same on every machine, whatever is installed there. A
compressed file has the type of the compression, not that of its content with a
``Content-Encoding``: clients would unpack what they want to store.
"""

from __future__ import annotations

from typing import Final

_TYPES: Final = """
application/epub+zip epub
application/gzip gz tgz
application/java-archive jar war
application/json json map
application/ld+json jsonld
application/manifest+json webmanifest
application/msword doc
application/pdf pdf
application/rtf rtf
application/vnd.android.package-archive apk
application/vnd.apache.parquet parquet
application/vnd.apple.mpegurl m3u8
application/vnd.debian.binary-package deb
application/vnd.ms-excel xls
application/vnd.ms-powerpoint ppt
application/vnd.oasis.opendocument.spreadsheet ods
application/vnd.oasis.opendocument.text odt
application/vnd.openxmlformats-officedocument.presentationml.presentation pptx
application/vnd.openxmlformats-officedocument.spreadsheetml.sheet xlsx
application/vnd.openxmlformats-officedocument.wordprocessingml.document docx
application/vnd.rar rar
application/vnd.sqlite3 sqlite sqlite3
application/wasm wasm
application/x-7z-compressed 7z
application/x-bzip2 bz2
application/x-iso9660-image iso
application/x-rpm rpm
application/x-tar tar
application/x-xz xz
application/xml xml xsl xsd
application/yaml yaml yml
application/zip zip whl
application/zstd zst
audio/aac aac
audio/flac flac
audio/mp4 m4a
audio/mpeg mp3
audio/ogg oga ogg opus
audio/wav wav
font/otf otf
font/ttf ttf
font/woff woff
font/woff2 woff2
image/avif avif
image/bmp bmp
image/gif gif
image/heic heic
image/jpeg jpeg jpg
image/png png
image/svg+xml svg
image/tiff tif tiff
image/vnd.microsoft.icon ico
image/webp webp
text/calendar ics
text/css css
text/csv csv
text/html htm html
text/javascript js mjs
text/markdown markdown md
text/plain asc conf cfg diff ini log patch rst text toml txt
text/tab-separated-values tsv
text/vtt vtt
video/iso.segment m4s
video/mp2t ts
video/mp4 m4v mp4
video/mpeg mpeg mpg
video/quicktime mov
video/webm webm
video/x-matroska mkv
video/x-msvideo avi
"""

_BY_ENDING: Final = {
    f".{ending}".encode("ascii"): kind
    for kind, *endings in map(str.split, _TYPES.strip().split("\n"))
    for ending in endings
}

_MOST_ENDING_BYTES: Final = max(map(len, _BY_ENDING))


def ending_of(key: bytes) -> bytes:
    """
    The end of a key, which alone decides what `guess_type` says; nothing if that is
    nothing. ``kvd/native/value.c`` looks replies up by it.
    """
    name = key[key.rfind(b"/") + 1 :]
    dot = name.rfind(b".")
    return b"" if dot < 0 or len(name) - dot > _MOST_ENDING_BYTES else name[dot:]


def guess_type(key: bytes) -> str | None:
    """
    The type of the values of a key, or of any key that ends like it; None: any bytes.
    """
    return _BY_ENDING.get(ending_of(key).lower())
