"""Launch: become the embedded engine, tied to the node that asked for it.

Run as `python -I -S embedded_launch.py TIE NODE_PID LOCK_FILE PROGRAM ARGUMENT…`; the process keeps its pid. It turns
into the engine only once it will get SIGTERM when its node dies, however that dies, and holds LOCK_FILE locked, with
its pid inside. The lock is inherited by the engine and all that it forks: it is free exactly when none of them lives.

TIE is `signal` where the kernel has a parent-death signal (Linux) and `pipe` elsewhere: there a small process waits for
the end of our standard input, whose other end only the node holds.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h
EXIT_NODE_GONE = 71
EXIT_LOCKED = 73


def main(arguments: list[str]) -> None:
    """Tie, lock, and turn into the engine."""
    tie, node_pid, lock_file, *program = arguments
    engine_pid = os.getpid()
    if tie == "signal":
        # Tied to the node's *thread* that forked us, and not inherited by what the engine forks.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(node_pid):
        sys.exit(EXIT_NODE_GONE)  # died before we asked for the signal: it would never come
    if tie == "pipe" and os.fork() == 0:
        _end_engine_with_pipe(engine_pid)
    _lock(lock_file)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.execv(program[0], program)  # noqa: S606  our own program, no shell


def _lock(lock_file: str) -> None:
    lock = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(EXIT_LOCKED)
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    os.set_inheritable(lock, True)


def _end_engine_with_pipe(engine_pid: int) -> None:
    while os.read(0, 1):
        pass
    if os.getppid() == engine_pid:  # else it has gone already, and its pid may be somebody else's
        os.kill(engine_pid, signal.SIGTERM)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
