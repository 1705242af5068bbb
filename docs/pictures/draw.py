"""
Draws the pictures of the documents: ``python docs/pictures/draw.py``, or into another
folder that is named behind it.

Each is an SVG of 520 units with text of 15 or 16, so that it can be read on a phone. It
has a background of its own, light or dark as the reader's system is, since a code host
and a site may be dark where the system is not.
"""

from __future__ import annotations

import sys
from configparser import ConfigParser
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parent
CONTRACTS = FOLDER.parent.parent / ".importlinter"
WIDTH = 520
STYLE = """
text { fill: #22313a; font: 15px system-ui, "Segoe UI", Roboto, sans-serif; }
.title { font-weight: 600; font-size: 16px; }
.code { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, monospace; }
.panel { fill: #fcfbf8; stroke: #ddd8cc; }
.box { fill: #e3eef4; stroke: #1b5e7b; }
.choice { fill: #faeadf; stroke: #c4552d; }
.quiet { fill: #f0ede4; stroke: #8b8776; }
.line { stroke: #4c6270; fill: none; stroke-width: 1.5; }
.dashed { stroke-dasharray: 5 4; }
.head { fill: #4c6270; }
@media (prefers-color-scheme: dark) {
  text { fill: #e3e8ea; }
  .panel { fill: #191d20; stroke: #3a4247; }
  .box { fill: #1d3b4a; stroke: #6db3d1; }
  .choice { fill: #4a2a1d; stroke: #e58a63; }
  .quiet { fill: #2a2d2c; stroke: #8f8d80; }
  .line { stroke: #9db1bc; }
  .head { fill: #9db1bc; }
}
""".strip()


class Picture:
    """
    An SVG that is being drawn.
    """

    def __init__(self, title: str, height: int) -> None:
        """
        Args:
            title: Read to those who do not see the picture.
            height: Of the picture; it is `WIDTH` wide.
        """
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}"'
            f' height="{height}" viewBox="0 0 {WIDTH} {height}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{STYLE}\n</style>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4"'
            ' markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse"'
            ' orient="auto-start-reverse"><path class="head" d="M0 0 8 4 0 8z"/>'
            "</marker></defs>",
            f'<rect class="panel" x="0.5" y="0.5" width="{WIDTH - 1}"'
            f' height="{height - 1}" rx="8"/>',
        ]

    def text(
        self, x: float, y: float, words: str, anchor: str = "middle", kind: str = ""
    ) -> None:
        """
        A line of text on the base line y.
        """
        self._parts.append(
            f'<text x="{x}" y="{y}" text-anchor="{anchor}" class="{kind}">'
            f"{escape(words)}</text>"
        )

    def box(
        self, x: float, y: float, width: float, lines: list[str], kind: str = "box"
    ) -> float:
        """
        A box with lines of text, the first of which is its title.

        Returns:
            The y of its bottom.
        """
        height = 14 + 20 * len(lines)
        self._parts.append(
            f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}"'
            ' rx="5"/>'
        )
        for number, words in enumerate(lines):
            style = "" if number else "title"
            self.text(x + width / 2, y + 22 + 20 * number, words, kind=style)
        return y + height

    def label(self, x: float, y: float, width: float, words: str, kind: str) -> None:
        """
        A flat box with one line of plain text.
        """
        self._parts.append(
            f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="34" rx="5"/>'
        )
        self.text(x + width / 2, y + 22, words)

    def arrow(self, points: str, kind: str = "", *, both: bool = False) -> None:
        """
        A line through points ("x y x y") with a head at its end.
        """
        start = ' marker-start="url(#head)"' if both else ""
        self._parts.append(
            f'<path class="line {kind}" d="M{points}" marker-end="url(#head)"{start}/>'
        )

    def line(self, points: str, kind: str = "") -> None:
        """
        A line through points.
        """
        self._parts.append(f'<path class="line {kind}" d="M{points}"/>')

    def text_of(self) -> str:
        """
        The picture as a file.
        """
        return "\n".join([*self._parts, "</svg>", ""])


def processes() -> Picture:
    """
    What runs, and where a policy decides.
    """
    picture = Picture(
        "Clients connect to listening sockets that the supervisor holds. A policy"
        " decides which worker gets each connection. Workers serve it from the store.",
        424,
    )
    left, right, wide = 16, 200, 304
    picture.box(right, 14, wide, ["clients"], "quiet")
    picture.arrow("352 48 352 76")
    picture.box(right, 78, wide, ["listening sockets"])
    picture.arrow("352 112 352 136")
    policy = [
        "policy: which worker is next?",
        "kernel: reuseport, steered",
        "workers: gated, shared",
        "supervisor: roundrobin, leastbusy",
    ]
    picture.box(right, 138, wide, policy, "choice")
    for worker in range(3):
        x = right + worker * 104
        picture.arrow(f"{x + 48} 232 {x + 48} 258")
        picture.box(x, 260, 96, [f"worker {worker}"])
        picture.arrow(f"{x + 48} 294 {x + 48} 344", both=True)
    picture.box(right, 346, wide, ["store", "one folder, each value a file"], "quiet")
    picture.box(left, 78, 152, ["supervisor", "holds the sockets,", "serves nobody"])
    picture.arrow("168 95 198 95")
    picture.arrow("92 152 92 258")
    picture.text(100, 210, "starts", "start")
    picture.box(left, 260, 152, ["fork server"])
    picture.arrow("168 277 198 277")
    picture.text(92, 318, "forks workers,")
    picture.text(92, 338, "replaces lost ones")
    return picture


def dispatch() -> Picture:
    """
    The three ways of a connection to a worker.
    """
    picture = Picture(
        "Three ways to a worker: the kernel chooses one of several sockets, workers"
        " take from one shared socket, or the supervisor accepts and hands over.",
        588,
    )
    ways = [
        (
            "The kernel chooses",
            "reuseport, steered",
            "a socket for each worker",
        ),
        (
            "The workers take",
            "gated, shared",
            "one socket for all",
        ),
        (
            "The supervisor hands over",
            "roundrobin, leastbusy, your own",
            "",
        ),
    ]
    for number, (who, policies, sockets) in enumerate(ways):
        top = 14 + number * 200
        picture.text(16, top + 18, who, "start", "title")
        picture.text(504, top + 18, policies, "end")
        picture.box(16, top + 78, 84, ["clients"], "quiet")
        for worker in range(3):
            picture.box(408, top + 32 + 46 * worker, 96, [f"worker {worker}"])
        middle = top + 95
        if number == 0:
            picture.text(226, top + 180, sockets)
            for worker in range(3):
                y = top + 49 + 46 * worker
                picture.arrow(f"100 {middle} 174 {y}")
                picture.box(176, y - 17, 100, ["socket"])
                picture.arrow(f"276 {y} 406 {y}")
        elif number == 1:
            picture.text(226, top + 132, sockets)
            picture.arrow(f"100 {middle} 174 {middle}")
            picture.box(176, top + 78, 100, ["socket"])
            for worker in range(3):
                y = top + 49 + 46 * worker
                picture.arrow(f"406 {y} 278 {middle + 8 * (worker - 1)}")
            picture.text(322, top + 52, "accept")
        else:
            picture.arrow(f"100 {middle} 118 {middle}")
            picture.box(120, top + 78, 78, ["socket"])
            picture.arrow(f"198 {middle} 220 {middle}")
            picture.box(222, top + 68, 112, ["supervisor", "choose(view)"], "choice")
            for worker in range(3):
                y = top + 49 + 46 * worker
                picture.arrow(f"334 {middle} 406 {y}")
    picture.line("16 204 504 204")
    picture.line("16 404 504 404")
    return picture


def put() -> Picture:
    """
    The way of a PUT.
    """
    picture = Picture(
        "A PUT: its head is checked, its body is moved into an upload file, and the"
        " file is published under its key before the reply.",
        664,
    )
    picture.box(110, 14, 300, ["PUT /key", "bytes come on a connection"], "quiet")
    picture.arrow("260 68 260 92")
    picture.box(
        40,
        94,
        440,
        [
            "head: checked, then parsed",
            "what can be refused is refused now, before the body",
        ],
    )
    columns = [
        (
            14,
            [
                "fast path",
                "up to 2 MiB, length",
                "known, head seen",
                "before; in C",
            ],
        ),
        (182, ["splice", "64 KiB or more,", "length known, no", "digest; in kernel"]),
        (
            350,
            [
                "chunk by chunk",
                "all other bodies:",
                "read and written,",
                "digest checked",
            ],
        ),
    ]
    for x, lines in columns:
        picture.arrow(f"{x + 78} 148 {x + 78} 178")
        picture.box(x, 180, 156, lines, "choice")
        picture.arrow(f"{x + 78} 274 {x + 78} 304")
    picture.box(
        40,
        306,
        440,
        [
            "upload: a file of its own in .kvd",
            "nobody sees it yet; a broken upload is removed",
        ],
    )
    picture.arrow("260 360 260 386")
    picture.text(270, 379, "durability disk: sync the file", "start")
    picture.box(
        40,
        388,
        440,
        [
            "publication, under the lock of the key",
            "conditions decided; date and entity tag fixed;",
            "one atomic step: old value or new, never half",
        ],
    )
    picture.arrow("260 462 260 488")
    picture.text(270, 481, "durability disk: sync the folders", "start")
    picture.box(
        40,
        490,
        440,
        ["reply 201 or 204", "with ETag and Kvd-Durability"],
        "quiet",
    )
    picture.arrow("260 544 260 572", "dashed")
    picture.box(
        40,
        574,
        440,
        [
            "durability process: sync within 5 s",
            "until then the replaced value is kept in .kvd,",
            "to come back if a power cut tore the new one",
        ],
        "quiet",
    )
    return picture


def handover() -> Picture:
    """
    A hand-over as a sequence.
    """
    picture = Picture(
        "Hand-over: the supervisor accepts, chooses a worker, adds one to the worker's"
        " counter and sends the batch. The worker takes one off, serves, and reports.",
        692,
    )
    client, supervisor, worker = 66, 246, 440
    for x, name in ((client, "client"), (supervisor, "supervisor"), (worker, "worker")):
        picture.line(f"{x} 48 {x} 676", "dashed")
        picture.box(x - 54, 14, 108, [name], "quiet" if name == "client" else "box")

    def message(y: float, start: float, end: float, words: str) -> None:
        gap = 3 if end > start else -3
        picture.arrow(f"{start} {y} {end - gap} {y}")
        picture.text((start + end) / 2, y - 7, words)

    message(82, client, supervisor, "connects")
    picture.box(supervisor - 90, 96, 180, ["accept", "up to 64 at once"], "box")
    picture.box(
        supervisor - 90, 162, 180, ["choose(view)", "for each of them"], "choice"
    )
    message(246, supervisor, worker, "counter + 1")
    message(282, supervisor, worker, "descriptors")
    picture.box(worker - 75, 296, 150, ["counter - 1", "owns the batch"], "box")
    message(382, worker, supervisor, "done: on the scoreboard")
    picture.box(
        supervisor - 90, 396, 180, ["close own copies", "of the descriptors"], "box"
    )
    message(472, worker, client, "")
    picture.text((client + supervisor) / 2, 465, "requests, replies")
    picture.line("16 496 504 496")
    picture.box(
        supervisor - 150,
        512,
        300,
        ["worker lost, or batch not taken", "for 0.15 s: supervisor takes it back"],
    )
    picture.box(
        supervisor - 90, 582, 180, ["choose again", "for another worker"], "choice"
    )
    message(662, supervisor, worker, "counter + 1")
    picture.text((client + supervisor) / 2 - 18, 660, "sees nothing of it")
    return picture


MEANINGS = {
    "testing": "doubles, contract suites",
    "cli": "the kvd command",
    "lab": "bench, simulate",
    "client": "for programs",
    "daemon": "service, supervisor",
    "options": "command line",
    "admin": "status, control",
    "workers": "processes, pool",
    "http": "connections, requests",
    "dispatch": "policies, hand-over",
    "ipc": "messages, scoreboard",
    "net": "sockets",
    "store": "values",
    "model": "keys, conditions, views",
    "settings": "checked, frozen",
    "errors": "every exception",
}


def layers() -> Picture:
    """
    Which package imports which, as the import contract says.
    """
    contracts = ConfigParser(interpolation=None)
    contracts.read(CONTRACTS, encoding="utf-8")
    lines = contracts["importlinter:contract:layers"]["layers"].split("\n")
    rows = [[name.strip() for name in line.split("|")] for line in lines if line]
    picture = Picture(
        "The packages of kvd in layers; each imports only from the layers below it.",
        28 + 42 * len(rows),
    )
    for number, names in enumerate(rows):
        y = 14 + 42 * number
        x, gap = 14.0, 8
        is_full = len(names) > 3
        room = 462 - gap * (len(names) - 1)
        # In a full row, a longer name has a wider box.
        weights = [len(name) + 3 if is_full else 1 for name in names]
        for name, weight in zip(names, weights, strict=True):
            wide = room * weight / sum(weights)
            words = name
            if not is_full and name in MEANINGS:
                words = f"{name}: {MEANINGS[name]}"
            kind = "quiet" if is_full else "box"
            picture.label(round(x, 1), y, round(wide, 1), words, kind)
            x += wide + gap
    picture.arrow(f"494 18 494 {10 + 42 * len(rows)}")
    return picture


PICTURES = {
    "processes.svg": processes,
    "dispatch.svg": dispatch,
    "put.svg": put,
    "handover.svg": handover,
    "layers.svg": layers,
}


def main(folder: Path = FOLDER) -> None:
    """
    Draw all of them.
    """
    for name, draw in PICTURES.items():
        (folder / name).write_text(draw().text_of(), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
