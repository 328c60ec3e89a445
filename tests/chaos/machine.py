"""Machine: a wall clock that is wrong and a disk that is full, for one process, both changed while it runs.

A small library (`machine.c`, built with the system's C compiler) stands between the process and its libc. Without a
compiler there is none, and rows that need it say that they were skipped.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("machine.c")
STATE = struct.Struct("<qq")
NO_BOUND = -1
NS = 1_000_000_000


def built(folder: Path) -> Path | None:
    """The library, built into a folder; None without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    library = folder / "machine.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603  our own source and options
    return library


class Machine:
    """What one process believes of its machine. Give it `environment` when it is started."""

    def __init__(self, library: Path, state: Path) -> None:
        state.write_bytes(STATE.pack(0, NO_BOUND))
        self.environment = {"LD_PRELOAD": str(library), "MACHINE": str(state)}
        with state.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), STATE.size)

    def wrapped(self, binary: Path, script: Path) -> Path:
        """A program that is `binary` on this machine."""
        settings = " ".join(f"{name}='{value}'" for name, value in self.environment.items())
        script.write_text(f"#!/bin/sh\n{settings} exec '{binary}' \"$@\"\n")
        script.chmod(0o700)
        return script

    def clock_ahead(self, seconds: float) -> None:
        """The wall clock is so far ahead of the true time from now on; negative: behind."""
        self._set(ahead_ns=round(seconds * NS))

    def disk_room(self, room_bytes: int = NO_BOUND) -> None:
        """So many more bytes fit on the disk; without a number: as many as you like."""
        self._set(room_bytes=room_bytes)

    def heal(self) -> None:
        """Right time, room on the disk."""
        self._set(ahead_ns=0, room_bytes=NO_BOUND)

    def _set(self, **changes: int) -> None:
        ahead_ns, room_bytes = STATE.unpack(self._shared[:])
        now = {"ahead_ns": ahead_ns, "room_bytes": room_bytes} | changes
        self._shared[:] = STATE.pack(now["ahead_ns"], now["room_bytes"])
