"""What a store's URL means to the adapter: which kind of store, where to begin, and how to connect."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

from actors.adapters.valkey.dialling import Address, Dialler, StoreUrl

A, B = Address("a", 1), Address("b", 2)


@pytest.mark.parametrize(
    ("url", "kind", "seeds", "service"),
    [
        ("redis://a:1/0", "one", (), ""),
        ("rediss://a:1", "one", (), ""),
        ("unix:///run/s.sock?db=3", "one", (), ""),
        ("redis+sentinel://a:1,b:2/mymaster", "sentinel", (A, B), "mymaster"),
        ("redis+sentinel://a/m", "sentinel", (Address("a", 26379),), "m"),
        ("rediss+sentinel://u:p@a:1,b:2/m?db=3&sentinel_password=s", "sentinel", (A, B), "m"),
        ("redis+cluster://a:1,b:2", "cluster", (A, B), ""),
        ("redis+cluster://a,[::1]:7/", "cluster", (Address("a", 6379), Address("::1", 7)), ""),
        ("rediss+cluster://:p%40w@a:1/0", "cluster", (A,), ""),
    ],
)
def test_the_scheme_says_what_kind_of_store_it_is(
    url: str, kind: str, seeds: tuple[Address, ...], service: str
) -> None:
    """And what stands behind it where to ask for its servers."""
    read = StoreUrl.read(url)

    assert (read.kind, read.seeds, read.service) == (kind, seeds, service)


@pytest.mark.parametrize("url", ["redis+cluster://", "redis+sentinel://a:1,,b:2/m", "redis+cluster://a:x"])
def test_a_url_that_names_no_server_is_refused(url: str) -> None:
    """A settings error, not something to find out later."""
    with pytest.raises(ValueError, match=r"."):
        StoreUrl.read(url)


@pytest.mark.parametrize(
    ("url", "kind", "told"),
    [
        ("redis://u:p@a:1/3", Connection, {"host": "a", "port": 1, "db": 3, "username": "u", "password": "p"}),
        ("unix://u:p@/run/s.sock?db=3", UnixDomainSocketConnection, {"path": "/run/s.sock", "db": 3, "password": "p"}),
        ("rediss://a:1", SSLConnection, {"host": "a", "port": 1}),
    ],
)
def test_one_server_is_dialled_as_its_url_says(url: str, kind: type, told: dict[str, Any]) -> None:
    """redis-py reads it."""
    connection = Dialler(StoreUrl.read(url), "me").dial()

    assert type(connection) is kind
    assert {field: getattr(connection, field) for field in told} == told


@pytest.mark.parametrize(
    ("url", "kind", "told"),
    [
        ("redis+cluster://u:p%40w@a:1,b:2", Connection, {"username": "u", "password": "p@w", "db": 0}),
        ("rediss+cluster://a:1?ssl_cert_reqs=none", SSLConnection, {"db": 0}),
        ("redis+sentinel://u:p@a:1/m?db=3&sentinel_password=s", Connection, {"db": 3, "password": "p"}),
        ("rediss+sentinel://a:1/m", SSLConnection, {"password": None}),
    ],
)
def test_every_server_of_a_store_is_dialled_with_its_account(url: str, kind: type, told: dict[str, Any]) -> None:
    """Wherever it is; the sentinels' own account is not shown to servers."""
    connection = Dialler(StoreUrl.read(url), "me").dial(Address("elsewhere", 77))

    assert type(connection) is kind
    assert isinstance(connection, Connection)
    assert (connection.host, connection.port) == ("elsewhere", 77)
    assert {field: getattr(connection, field) for field in told} == told


def test_sentinels_have_an_account_of_their_own() -> None:
    """And are spoken to as safely as the servers."""
    plain = StoreUrl.read("redis+sentinel://u:p@a:1/m?sentinel_username=su&sentinel_password=sp").sentinel
    safe = StoreUrl.read("rediss+sentinel://u:p@a:1/m?ssl_ca_certs=/ca.pem").sentinel

    assert plain == {"username": "su", "password": "sp"}
    assert safe == {"ssl": True, "ssl_ca_certs": "/ca.pem"}
