"""Database URL: which PostgreSQL a URL can name, and how such a URL is shown.

Pure. Allows what asyncpg can read and nothing that it would read as something else: an unescaped character of a
password ends the password there, and the rest of it becomes a host, a port or a name. Never repeats the URL: it
carries a password.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from router.values import PORT_MAX, Secret

SECRET_QUERY = frozenset({"password", "sslpassword"})
"""Parts that nobody should read, besides the password of the account."""
CHOICES = {
    "sslmode": frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}),
    "sslnegotiation": frozenset({"postgres", "direct"}),
    "target_session_attrs": frozenset(
        {"any", "primary", "standby", "read-write", "read-only", "prefer-standby"},
    ),
    "ssl_min_protocol_version": frozenset({"TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"}),
    "ssl_max_protocol_version": frozenset({"TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"}),
    "gsslib": frozenset({"gssapi", "sspi"}),
}
QUERY = SECRET_QUERY | {
    *("host", "port", "dbname", "database", "user", "passfile", "service", "krbsrvname"),
    *("sslcert", "sslkey", "sslrootcert", "sslcrl"),
    *CHOICES,
}
"""What may stand behind the question mark: anything else goes to the server, which refuses what it does not know."""
_HOST_FORBIDDEN = re.compile(r"[\s\[\]@/?#%:]")


def database_url(text: str) -> Secret:
    """Where PostgreSQL is; its password is kept out of sight."""
    try:
        valid = text.isprintable() and _is_readable(text)
    except ValueError:  # UnicodeError is one
        valid = False
    if not valid:
        raise ValueError(
            "expected postgresql://user:password@host:port/name, with # / ? @ : and % of a password written as "
            "%23 %2F %3F %40 %3A and %25, and no parameters but those of libpq that asyncpg knows"
        )
    return Secret(text)


def redacted_database_url(url: str) -> str:
    """The URL without its passwords, for people to read; nothing of one that cannot be read."""
    try:
        database_url(url)
    except ValueError:
        return "***"
    parts = urlsplit(url)
    account, at, place = parts.netloc.rpartition("@")
    name, colon, _ = account.partition(":")
    query = [(key, "***" if key in SECRET_QUERY else value) for key, value in parse_qsl(parts.query)]
    netloc = f"{name}{':***' if colon else ''}{at}{place}"
    return urlunsplit((parts.scheme, netloc, parts.path, urlencode(query, safe="*/"), ""))


def _is_readable(text: str) -> bool:
    parts = urlsplit(text)
    return (
        parts.scheme in ("postgresql", "postgres")
        and text.lower().startswith(f"{parts.scheme}://")
        and "#" not in text
        and parts.netloc.count("@") <= 1
        and "@" not in parts.path + parts.query  # of an account whose password was cut short
        and "\0" not in unquote(text)
        and _is_query(parts)
        and _are_hosts(parts)
    )


def _is_query(parts: SplitResult) -> bool:
    given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True) if parts.query else []
    return all(name in QUERY and value and value in CHOICES.get(name, (value,)) for name, value in given)


def _are_hosts(parts: SplitResult) -> bool:
    query = dict(parse_qsl(parts.query))
    named = parts.netloc.rpartition("@")[2]
    hosts = named or query.get("host", "")
    ports = query["port"].split(",") if "port" in query else []
    count = len(hosts.split(","))
    return (
        all(_is_port(each) for each in ports)
        and len(ports) in (0, 1, count)
        and (not hosts or all(_is_place(each, escaped=bool(named)) for each in hosts.split(",")))
    )


def _is_place(text: str, *, escaped: bool) -> bool:
    if text.startswith("/"):
        return not escaped
    bracketed = re.fullmatch(r"\[([0-9A-Fa-f:.]+(?:%\w+)?)\](?::(.*))?", text)
    if bracketed:
        return bracketed[2] is None or _is_port(bracketed[2])
    name, colon, number = text.partition(":")
    return _is_host(unquote(name) if escaped else name) and (not colon or _is_port(number))


def _is_host(name: str) -> bool:
    if name.startswith("/"):
        return True  # the folder of a socket
    name.encode("idna")
    return bool(name) and not _HOST_FORBIDDEN.search(name)


def _is_port(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,5}", text)) and 0 < int(text) <= PORT_MAX
