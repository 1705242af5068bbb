"""
A browser without a window, for tests.

It is asked over a pair of pipes in the DevTools protocol: JSON, each message ended by
a NUL. That needs no driver beside it whose version would have to match.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

WAIT_SECONDS = 120


class Chromium:
    """
    A browser with one page, for the length of a ``with``.
    """

    def __init__(self, folder: Path) -> None:
        """
        Args:
            folder: For its profile.
        """
        program = shutil.which("chromium")
        assert program is not None, "chromium is not installed; .ci/run installs it"
        self._command = [
            program,
            "--headless",
            # It runs as root in builds, where it has no sandbox to offer.
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            f"--user-data-dir={folder}",
            "--remote-debugging-pipe",
        ]
        self._number = 0
        self._session: str | None = None
        self._target: str | None = None
        self.complaints: list[str] = []
        """What the page wrote to the console as an error, or did not catch."""

    def __enter__(self) -> Chromium:
        asked, self._ask = os.pipe()
        self._answers, answer = os.pipe()
        # It reads from descriptor 3 and writes to 4.
        shell = ["bash", "-c", f'exec "$@" 3<&{asked} 4>&{answer}', "bash"]
        try:
            self.process = subprocess.Popen(
                [*shell, *self._command],
                pass_fds=[asked, answer],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        finally:
            os.close(asked)
            os.close(answer)
        self._read = os.fdopen(self._answers, "rb")
        self._buffer = b""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # It ends when its pipe closes.
        os.close(self._ask)
        try:
            self.process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._read.close()

    def ask(self, method: str, **parameters: Any) -> Any:
        """
        Have something done, and wait until it is.
        """
        self._number += 1
        message: dict[str, Any] = {
            "id": self._number,
            "method": method,
            "params": parameters,
        }
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._ask, json.dumps(message).encode() + b"\0")
        while True:
            message = self._receive()
            if message.get("id") == self._number:
                assert "error" not in message, message["error"]
                return message["result"]
            self._note(message)

    def _receive(self) -> Any:
        while b"\0" not in self._buffer:
            piece = os.read(self._answers, 1 << 16)
            assert piece, "chromium has ended"
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, message: Any) -> None:
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(message["params"]["exceptionDetails"]))
        elif message.get("method") == "Log.entryAdded":
            entry = message["params"]["entry"]
            if entry["level"] == "error":
                self.complaints.append(f"{entry['text']} {entry.get('url', '')}")

    def open(
        self,
        url: str,
        width: int = 1280,
        height: int = 900,
        dark: bool = False,
        scripts: bool = True,
    ) -> None:
        """
        Open a page in the place of another one, and wait until all of it is there.

        Args:
            dark: The colour scheme that it sees.
            scripts: Whether scripts of pages run.
        """
        if self._target is not None:
            self._session = None
            self.ask("Target.closeTarget", targetId=self._target)
            self.complaints.clear()
        self._target = target = self.ask("Target.createTarget", url="about:blank")[
            "targetId"
        ]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.ask("Runtime.enable")
        self.ask("Log.enable")
        self.ask("Page.enable")
        # They take width, but not in a picture, where all of the page is seen.
        self.ask("Emulation.setScrollbarsHidden", hidden=True)
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        taste = "dark" if dark else "light"
        self.ask(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": taste}],
        )
        self.ask("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.ask("Page.navigate", url=url)
        self.until(
            "location.href !== 'about:blank' && document.readyState == 'complete'"
        )

    def value(self, expression: str) -> Any:
        """
        What a piece of JavaScript yields in the page.
        """
        evaluated = self.ask(
            "Runtime.evaluate", expression=expression, returnByValue=True
        )
        assert "exceptionDetails" not in evaluated, evaluated["exceptionDetails"]
        return evaluated["result"].get("value")

    def until(self, expression: str) -> Any:
        """
        Wait until it yields something that is true.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while not (value := self.value(expression)):
            assert time.monotonic() < deadline, f"it never came true: {expression}"
            time.sleep(0.05)
        return value

    def press(self, key: str, code: int, text: str = "") -> None:
        """
        Press a key and let it go.

        Args:
            key: As in ``KeyboardEvent.key``.
            code: As in ``KeyboardEvent.keyCode``.
            text: What it types.
        """
        more = {"text": text} if text else {}
        for kind in ("keyDown", "keyUp"):
            self.ask(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                **more,
            )
            more = {}

    def choose_files(self, selector: str, paths: Sequence[Path]) -> None:
        """
        Choose files in a field, as its dialog would.
        """
        root = self.ask("DOM.getDocument")["root"]["nodeId"]
        node = self.ask("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.ask("DOM.setFileInputFiles", nodeId=node, files=[*map(str, paths)])

    def drop_files(self, x: int, y: int, paths: Sequence[Path]) -> None:
        """
        Drag files onto a place of the page, and drop them there.
        """
        data = {"items": [], "files": [*map(str, paths)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.ask("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def picture(self, whole: bool = True) -> bytes:
        """
        The page as a PNG.
        """
        captured = self.ask(
            "Page.captureScreenshot", format="png", captureBeyondViewport=whole
        )
        return base64.b64decode(captured["data"])
