"""Programs in a terminal: what a person would see and type."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading

from gatecast import ROOT, clean_environment, eventually

NODE_MODULES = ROOT / "tests/.tools/node/node_modules"
WSCAT = NODE_MODULES / "wscat/bin/wscat"
COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ERASED = re.compile(r"[^\n]*\r(?:\x1b\[\d*[GD])?\x1b\[2?K")


class Terminal:
    """`wscat` in a pseudo terminal."""

    def __init__(self, *arguments):
        ours, theirs = pty.openpty()
        # Wide, so that nothing is wrapped.
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 1000, 0, 0))
        environment = clean_environment({"TERM": "xterm"})
        line = ["node", str(WSCAT), *arguments]
        self.process = subprocess.Popen(
            line, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
        )
        os.close(theirs)
        self.ours = ours
        self.output = ""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.reader.join(timeout=10)
        os.close(self.ours)

    def _read(self):
        try:
            while data := os.read(self.ours, 1 << 16):
                self.output += data.decode()
        except OSError:
            pass  # The terminal's other end is closed: the program has ended.

    def lines(self):
        """The lines on the screen, without colours, erased text and prompts."""
        text = ERASED.sub("", self.output.replace("\r\n", "\n"))
        return [COLOUR.sub("", line).replace("\r", "") for line in text.split("\n")]

    def type(self, line):
        os.write(self.ours, line.encode() + b"\r")

    def shows(self, line):
        """Waits until a line is on the screen, by itself."""
        eventually(lambda: line in self.lines())
        return self

    def count(self, line):
        return self.lines().count(line)
