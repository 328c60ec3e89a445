"""What a person reads when the node is ready, and when it could not start."""

from __future__ import annotations

import errno
import os
import socket

import pytest

from actors.adapters.data_dir import DataDirUnusable
from router.banner import ready_lines, start_error_line
from router.listening import CannotListen, addresses, http_url, listen
from router.settings import load


def test_the_banner_says_where_everything_is_and_how_to_stop() -> None:
    """With the embedded store: the folder of the data."""
    settings = load({"DATA_DIR": "/var/lib/buzon", "NODE_ID": "n1"}).settings

    text = "\n".join(ready_lines(settings, [("127.0.0.1", 8000), ("127.0.0.1", 8001)], "Valkey 9.1.2"))

    assert "is ready (node n1)" in text
    assert "http://127.0.0.1:8000  http://127.0.0.1:8001" in text
    assert "/var/lib/buzon (embedded Valkey 9.1.2" in text
    assert "http://127.0.0.1:8000/docs" in text
    assert "Ctrl-C" in text


def test_the_banner_names_a_store_without_its_password() -> None:
    """With a store of one's own: its URL."""
    settings = load({"REDIS_URL": "redis://u:canary@h:1/2"}).settings

    text = "\n".join(ready_lines(settings, [("::", 80)], "Redis 7.4.1"))

    assert "redis://u:***@h:1/2 (Redis 7.4.1)" in text
    assert "http://[::1]:80/docs" in text
    assert "canary" not in text


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:1"), ("0.0.0.0", "http://127.0.0.1:1"), ("::1", "http://[::1]:1")],
)
def test_an_address_is_shown_as_it_is_reached_from_here(host: str, url: str) -> None:
    """The any-address is one that can be listened on but not called."""
    assert http_url(host, 1) == url


def test_a_taken_port_is_one_line() -> None:
    """It names the port and what to do."""
    (taken,) = listen("127.0.0.1", [0])
    with taken:
        port = addresses([taken])[0][1]
        with pytest.raises(CannotListen) as caught:
            listen("127.0.0.1", [0, port])

    assert start_error_line(caught.value) == (
        f"PORT: port {port} on 127.0.0.1 is taken by another program; end it or set another PORT"
    )


@pytest.mark.parametrize(
    ("host", "line"),
    [
        ("192.0.2.1", "APP_HOST: 192.0.2.1 is not an address of this machine"),
        ("a..b", "APP_HOST: a..b is not an address or a name of this machine"),
    ],
)
def test_an_address_of_elsewhere_is_one_line(host: str, line: str) -> None:
    """It names the setting."""
    with pytest.raises(CannotListen) as caught:
        listen(host, [0])

    assert str(caught.value) == line


def test_several_ports_listen_at_once() -> None:
    """Also with some picked by the kernel, and each answers a connection."""
    sockets = listen("127.0.0.1", [0, 0])

    for host, port in addresses(sockets):
        socket.create_connection((host, port), timeout=1).close()
    assert len({port for _, port in addresses(sockets)}) == 2
    for listener in sockets:
        listener.close()


def test_only_what_a_person_can_mend_is_one_line() -> None:
    """Anything else keeps its traceback."""
    assert start_error_line(DataDirUnusable("DATA_DIR: x")) == "DATA_DIR: x"
    full = start_error_line(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert full == "DATA_DIR: cannot write: No space left on device"
    assert start_error_line(OSError(errno.EBADF, "x")) is None
    assert start_error_line(RuntimeError("a mistake of ours")) is None
