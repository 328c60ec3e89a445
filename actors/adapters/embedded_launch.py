"""Launch: become an embedded engine, tied to the node that asked for it.

Run as `python -I -S embedded_launch.py TIE SIGNAL NODE_PID LOCK_FILE ACCOUNT PROGRAM ARGUMENT…`; the process keeps its
pid. It turns into the engine only once it will get SIGNAL when its node dies, however that dies, and holds LOCK_FILE
locked, with its pid inside. The lock is inherited by the engine and all that it forks: it is free exactly when none of
them lives.

TIE is `signal` where the kernel has a parent-death signal (Linux) and `pipe` elsewhere: there a small process waits for
the end of our standard input, whose other end only the node holds.

ACCOUNT is `-`, or UID:GID for an engine that refuses to be root. On Linux it keeps one of root's rights, to read
whatever lies on its way: the project or its data may be in a folder of root's that nobody else can enter.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import sys

PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2  # linux/prctl.h
CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
"""The second is all that is needed; Docker leaves root only the first."""
EXIT_NODE_GONE = 71
EXIT_LOCKED = 73


def main(arguments: list[str]) -> None:
    """Tie, lock, and turn into the engine."""
    tie, end, node_pid, lock_file, account, *program = arguments
    engine_pid = os.getpid()
    lock = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o600)
    if account != "-":
        _become(*map(int, account.split(":")))
    if tie == "signal":
        # Tied to the node's *thread* that forked us, and not inherited by what the engine forks. After the change of
        # user, which would undo it.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(end), 0, 0, 0)
    if os.getppid() != int(node_pid):
        sys.exit(EXIT_NODE_GONE)  # died before we asked for the signal: it would never come
    if tie == "pipe" and os.fork() == 0:
        os.close(lock)
        _end_engine_with_pipe(engine_pid, int(end))
    _take(lock)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.execv(program[0], program)  # noqa: S606  our own program, no shell


def _take(lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(EXIT_LOCKED)
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    os.set_inheritable(lock, True)


def _become(uid: int, gid: int) -> None:
    """Turn from root into another user (capabilities(7): kept over setuid, ambient, so that exec keeps them too)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux":
        libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if sys.platform == "linux":
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
        for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
            bit = 1 << capability
            sets = (ctypes.c_uint32 * 6)(bit, bit, bit, 0, 0, 0)  # effective, permitted, inheritable: low, then high
            if libc.capset(header, sets) == 0:  # else the container has none to give: the way must be open then
                libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0)
                return


def _end_engine_with_pipe(engine_pid: int, end: int) -> None:
    while os.read(0, 1):
        pass
    if os.getppid() == engine_pid:  # else it has gone already, and its pid may be somebody else's
        os.kill(engine_pid, end)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
