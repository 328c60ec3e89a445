"""Sockets: which process holds the other end of a loopback connection, as the kernel tells it. Linux only.

Asks for one socket at a time (sock_diag(7)): `/proc/net/tcp` takes the kernel ten milliseconds on a busy machine.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST = 1
ALL_STATES = 0xFFFFFFFF
NO_COOKIE = b"\xff" * 8
LOOPBACK = socket.inet_aton("127.0.0.1") + bytes(12)
HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
REQUEST = struct.Struct("=BBxxI")  # inet_diag_req_v2 up to its id: family, protocol, states
PORTS = struct.Struct("!HH")
INODE_AT = HEADER.size + 4 + 48 + 16  # after nlmsghdr and inet_diag_msg's state, id and queues
ANSWER_BYTES = 4096


class Kernel:
    """Open once, ask often."""

    def __init__(self) -> None:
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
        self._netlink.settimeout(1)

    def close(self) -> None:
        """Ask no more."""
        self._netlink.close()

    def owner_of(self, local_port: int, remote_port: int, pids: Mapping[int, str]) -> str:
        """The name of the process that holds the socket `127.0.0.1:local_port` → `remote_port`, "" none of them."""
        inode = self._inode(local_port, remote_port)
        return next((name for pid, name in pids.items() if inode in _socket_inodes(pid)), "") if inode else ""

    def _inode(self, local_port: int, remote_port: int) -> int:
        place = PORTS.pack(local_port, remote_port) + LOOPBACK + LOOPBACK + bytes(4) + NO_COOKIE
        body = REQUEST.pack(socket.AF_INET, socket.IPPROTO_TCP, ALL_STATES) + place
        length = HEADER.size + len(body)
        self._netlink.send(HEADER.pack(length, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0) + body)
        answer = self._netlink.recv(ANSWER_BYTES)
        if HEADER.unpack_from(answer)[1] != SOCK_DIAG_BY_FAMILY:
            return 0  # an error: it is gone
        inode: int = struct.unpack_from("=I", answer, INODE_AT)[0]
        return inode


def socket_count(pid: int) -> int:
    """How many sockets a process has open."""
    return len(_socket_inodes(pid))


def _socket_inodes(pid: int) -> set[int]:
    folder = f"/proc/{pid}/fd"
    found: set[int] = set()
    try:
        descriptors = os.listdir(folder)
    except OSError:
        return found  # it is gone
    for descriptor in descriptors:
        try:
            target = os.readlink(f"{folder}/{descriptor}")
        except OSError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            found.add(int(target[8:-1]))
    return found
