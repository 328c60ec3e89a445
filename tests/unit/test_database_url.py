"""DATABASE_URL: what the driver could not read, or would read as something else, is refused at the start."""

from __future__ import annotations

import pytest
from asyncpg import connect_utils
from hypothesis import given
from hypothesis import strategies as st

from router.database_url import database_url, redacted_database_url
from router.settings import SettingsError, load

SECRET = "s3cr3t"
PIECES = (
    "postgresql",
    "postgres",
    "://",
    ":",
    "/",
    "@",
    "#",
    "?",
    "&",
    "=",
    ",",
    "[",
    "]",
    "%",
    ".",
    "..",
    "\0",
    " ",
    "é",
)
WORDS = (
    "u",
    "pw",
    "h",
    "127.0.0.1",
    "::1",
    "5432",
    "0",
    "99999",
    "%2F",
    "%40",
    "x" * 64,
    "host",
    "port",
    "sslmode",
    "require",
)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:pw@db.example:5433/stock",
        "postgres://u:pw@db/stock",
        "postgresql://u:p%40%23%2F%3F%25@db/stock",
        "postgresql://u:pw@/stock?host=/run/pg&port=5433",
        "postgresql://u:pw@%2Frun%2Fpg/stock",
        "postgresql://u@[::1]:5433/stock",
        "postgresql://u:pw@a:1,b:2/stock?target_session_attrs=read-write",
        "postgresql://u:pw@a,b/stock?port=1,2",
        "postgresql:///stock",
        "postgresql://u:pw@bücher.example/stock?sslmode=verify-full&sslrootcert=/etc/root.crt",
    ],
)
def test_what_the_driver_can_read_is_taken(url: str) -> None:
    """As it is."""
    assert load({"DATABASE_URL": url}).settings.database_url == url


@pytest.mark.parametrize(
    "url",
    [
        f"http://u:{SECRET}@h/x",
        f"postgresql:u:{SECRET}",
        f"postgresql://u:{SECRET}@127.0.0.1:notaport/x",
        f"postgresql://u:{SECRET}@127.0.0.1:0/x",
        f"postgresql://u:{SECRET}@127.0.0.1:99999/x",
        f"postgresql://u:{SECRET}@h:/x",
        f"postgresql://u:{SECRET}@a..b/x",
        f"postgresql://u:{SECRET}@{'a' * 64}/x",
        f"postgresql://u:{SECRET}@a,,b/x",
        f"postgresql://u:{SECRET}@a b/x",
        f"postgresql://u:{SECRET}@[::1/x",
        f"postgresql://u:{SECRET}#y@h/x",
        f"postgresql://u:{SECRET}/y@h/x",
        f"postgresql://u:12/{SECRET}@h/x",
        f"postgresql://u:{SECRET}?y@h/x",
        f"postgresql://u:12?user={SECRET}@h/x",
        f"postgresql://u:{SECRET}@y@h/x",
        f"postgresql://u:{SECRET}%00@h/x",
        f"postgresql://u:{SECRET}@h/x?port=1,2",
        f"postgresql://u:{SECRET}@h/x?port=x",
        f"postgresql://u@/x?host=a..b&password={SECRET}",
        f"postgresql://u:{SECRET}@h/x?sslmode=maybe",
        f"postgresql://u:{SECRET}@h/x?sslmode",
        f"postgresql://u:{SECRET}@h/x?pasword={SECRET}",
        f"postgresql://u:{SECRET}@h/x?ssl_min_protocol_version=SSLv3",
    ],
)
def test_what_the_driver_cannot_read_is_one_line_without_the_value(url: str) -> None:
    """It names the setting."""
    with pytest.raises(SettingsError) as caught:
        load({"DATABASE_URL": url})

    line = str(caught.value)
    assert line.startswith("DATABASE_URL: expected postgresql://")
    assert line.isprintable()
    assert SECRET not in line


@given(text=st.lists(st.sampled_from(PIECES + WORDS), max_size=12).map("".join), begun=st.booleans())
def test_whatever_is_taken_the_driver_reads(*, text: str, begun: bool) -> None:
    """And reads no user, host or name with an @ in it that was not escaped."""
    url = f"postgresql://u:pw{text}" if begun else text
    try:
        database_url(url)
    except ValueError:
        assert redacted_database_url(url) == "***"
        return

    addresses, read = connect_utils._parse_connect_dsn_and_args(  # type: ignore[attr-defined]  # not in its stubs
        dsn=url,
        **dict.fromkeys(("host", "port", "user", "password", "passfile", "database", "ssl", "service", "servicefile")),
        **dict.fromkeys(("direct_tls", "server_settings", "target_session_attrs", "krbsrvname", "gsslib")),
    )

    assert not read.server_settings
    for address in addresses:
        if isinstance(address, tuple):
            assert 0 < address[1] < 65536
            address[0].encode("idna")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://u:{SECRET}@h:1/x", "postgresql://u:***@h:1/x"),
        (f"postgresql://u@h/x?password={SECRET}&sslmode=require", "postgresql://u@h/x?password=***&sslmode=require"),
        (f"postgresql://u@h/x?sslpassword={SECRET}&sslkey=/k", "postgresql://u@h/x?sslpassword=***&sslkey=/k"),
        (f"postgresql://u:{SECRET}#y@h/x", "***"),
    ],
)
def test_no_password_is_shown(url: str, shown: str) -> None:
    """Nothing at all of what cannot be read."""
    assert redacted_database_url(url) == shown
