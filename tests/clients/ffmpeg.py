"""
ffmpeg's HLS ingest, with the commands in ``docs/clients/ffmpeg.rst``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.request import urlopen

from kvd.lab.measuring.processes import wait_for
from tests.clients.running import ADDRESS, run, settings_in
from tests.integration.twistd import Twistd
from tests.patience import PATIENCE_SECONDS

PACKAGES: Final = {"ffmpeg": "ffmpeg"}

SECONDS: Final = 14
LISTED: Final = 10
"""Segments of a second each that the page has ffmpeg keep in the playlist."""
FRAMES: Final = 10
"""In a second."""


def main(folder: Path) -> None:
    """
    A stream in, and out again.
    """
    options = [
        *[f"--store=file:{folder}/values", "--durability=process", "--procs=2"],
        *["--policy=roundrobin", "--control=off", "--guess-types=on"],
        f"--access-log={folder}/log",
    ]
    with Twistd(options, folder) as daemon:
        stored = streamed(folder, f"127.0.0.1:{daemon.port}")
        daemon.stop()
    lines = [line.split() for line in (folder / "log").read_text().splitlines()]
    puts = [line for line in lines if line[4] == "PUT"]
    deletes = [line for line in lines if line[4] == "DELETE"]
    assert {"201", "204"} == {line[6] for line in puts}
    assert {"204"} == {line[6] for line in deletes}
    version = run(folder, "ffmpeg", "-version").split()[2]
    print(
        f"ffmpeg {version}: {len(puts)} PUT, {len(deletes)} DELETE, {stored} segments"
        " left and played, a deleted one missed"
    )


def streamed(folder: Path, address: str) -> int:
    """
    Run what the page shows.

    Returns:
        How many segments are stored in the end.
    """
    source = f"testsrc=size=320x180:rate={FRAMES}"
    run(
        folder,
        *["ffmpeg", "-f", "lavfi", "-i", source, "-t", str(SECONDS), "-g", str(FRAMES)],
        *["-c:v", "libx264", "-preset", "ultrafast", "-bf", "0", "input.mp4"],
    )
    ingest, play = (
        block.replace(ADDRESS, address) for block in settings_in("ffmpeg", "shell")[1:]
    )
    said = run(folder, "bash", "-c", ingest)
    # It ends without waiting for the last replies.
    playlist = folder / "values" / "live" / "stream.m3u8"
    assert wait_for(lambda: "ENDLIST" in playlist.read_text(), PATIENCE_SECONDS), said
    url = f"http://{address}/live/stream.m3u8"
    with urlopen(url) as reply:
        assert "application/vnd.apple.mpegurl" == reply.headers["Content-Type"]
        listed = re.findall(rb"(?m)^stream\d+\.ts$", reply.read())
    assert LISTED == len(listed)
    stored = {path.name for path in (folder / "values" / "live").glob("*.ts")}
    assert {name.decode() for name in listed} <= stored, (listed, stored, said)
    assert len(stored) < SECONDS
    said = run(folder, "bash", "-c", play)
    assert _frames(folder, "played.mp4") == LISTED * FRAMES, said
    (folder / "values" / "live" / listed[5].decode()).unlink()
    said = run(folder, "bash", "-c", play.replace("played", "less"))
    assert "404" in said, said
    assert _frames(folder, "less.mp4") == (LISTED - 1) * FRAMES, said
    return len(stored)


def _frames(folder: Path, name: str) -> int:
    return int(
        run(
            folder,
            *["ffprobe", "-v", "error", "-count_packets", "-select_streams", "v"],
            *["-show_entries", "stream=nb_read_packets", "-of", "csv=p=0", name],
        )
    )
