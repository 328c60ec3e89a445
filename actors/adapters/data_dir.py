"""Data folder: the lock that makes DATA_DIR belong to one node while it lives.

Owns the file `lock` in it. The kernel drops the lock when the node dies, however it dies; nothing has to be cleaned up.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from actors.core.refusals import CannotStart


class DataDirUnusable(CannotStart):
    """DATA_DIR cannot be used by this node."""


class DataDirLock:
    """Keeps a second node out of DATA_DIR while this one lives. Not inherited by the engine or any other child."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Make the folder and lock it; `DataDirUnusable` when it cannot be written or another node has it."""
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise DataDirUnusable(f"DATA_DIR: cannot write to {self.data_dir}: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise DataDirUnusable(
                f"DATA_DIR: {self.data_dir} is in use by another node (pid {owner}); give each node its own"
            ) from None
        os.ftruncate(descriptor, 0)
        with suppress(OSError):  # a full disk: the lock holds all the same, only its owner stays unknown
            os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Let the next node in. The file stays: removing it would let two nodes lock two different files."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()
