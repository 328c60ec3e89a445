"""Evolution answers: what became of a text that was given to Evolution API to send.

Classifies by what the answer says, not by its status: Evolution wraps every exception of a send as a 400, so the same
400 is final or temporary. Never decides how often to try again, nor whether a doubtful send is repeated.
Invariants: nothing is Sent without an id; a server that asks for the dialect it was sent is not asked again; a reason
is one short line of ours, with at most an excerpt of Evolution's sentence and nothing in it that looks like a secret.
Source: the facts about Evolution, section 2.1 (the table and its matcher) and 2.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from actors.core.evolution_send import Dialect
from actors.core.evolution_server import Answer, InstanceState, Paused, license_missing, pause_for
from actors.core.foreign_json import Unreadable, at, decode, text_at
from actors.core.phones import LID_DOMAIN

ANSWER_BYTES_MAX = 1024 * 1024
"""How much of an answer to read: it repeats the text, 64 Ki characters of up to six bytes each, and a quoted one."""
EXCERPT_CHARACTERS_MAX = 160

Refusal = Literal[
    "validation",  # the request is not as Evolution wants it
    "empty_text",
    "not_on_whatsapp",
    "lid_not_found",  # up to 2.3.7 often a false negative (#2547): the phone JID of the same contact may work
    "unknown_instance",
    "unauthorized",  # the API key is wrong: nothing of this instance will go out until somebody acts
    "forbidden",
    "no_route",  # the URL leads to something that is no Evolution API, or a path of it that it doesn't have
    "refused",
]
Fault = Literal[
    "closed",
    "not_loaded",
    "rate_limited",
    "unreachable",
    "other",
    "timed_out",  # on its way to WhatsApp: it may have gone out all the same
]


class Silence(Struct, frozen=True):
    """No answer. `written` is whether the request, or a part of it, had left; `error` is one short phrase of ours."""

    written: bool
    error: str


class Sent(Struct, frozen=True):
    """Evolution took it. `remote_jid` is what WhatsApp calls the contact, and may differ from the number sent."""

    key_id: str
    remote_jid: str | None


class Rejected(Struct, frozen=True):
    """It will never be sent like this."""

    kind: Refusal
    reason: str


class Trouble(Struct, frozen=True):
    """It was not sent, and may be later. Unless nothing was reachable, ask for the instance's state: `confirmed`."""

    kind: Fault
    reason: str


class WrongDialect(Struct, frozen=True):
    """It was not sent: the server speaks the other dialect, `use`."""

    use: Dialect


class Uncertain(Struct, frozen=True):
    """It may have been sent or not."""

    reason: str


SendOutcome = Sent | Rejected | Trouble | Paused | WrongDialect | Uncertain

_GATEWAY_TIMEOUTS = (504, 524)
"""A proxy gave up waiting after it had passed the request on (RFC 9110 §15.6.5; 524 is Cloudflare's)."""
_LATER = (408, 425, 429)
"""Statuses by which a proxy asks to come again. Evolution itself uses none of them."""
_TRANSIENT = re.compile(
    r"(?P<closed>connection (?:closed|terminated|lost))|(?P<rate_limited>rate-overlimit)"
    r"|(?P<not_loaded>Cannot read properties of undefined)|(?P<timed_out>timed out)|stream errored|ECONN|socket",
    re.IGNORECASE,
)
_WANTED: tuple[tuple[str, Dialect], ...] = (
    ('requires property "textMessage"', "v1"),
    ('requires property "text"', "v2"),
)
_BY_TEXT: tuple[tuple[re.Pattern[str], Refusal, str], ...] = (
    (re.compile(r"Text is required"), "empty_text", "the text is empty"),
    (re.compile(r"\binstance does not exist"), "unknown_instance", "Evolution has no such instance"),
    (re.compile(r"^Cannot [A-Z]+ /"), "no_route", "Evolution has no such route: is its URL right?"),
)
_BY_STATUS: dict[int, tuple[Refusal, str]] = {
    401: ("unauthorized", "Evolution refused the API key"),
    403: ("forbidden", "Evolution forbids it"),
    404: ("no_route", "nothing is there: is Evolution's URL right?"),
}
_OBJECT = "[object Object]"
_SECRETS = re.compile(
    r"[a-z]+://\S*"  # a URL may hold a password or a token
    r"|(?:(?:bearer|api[-_ ]?key|token|secret|password|authorization)\S*\s*)+\S*"
    r"|[\w+/=-]{16,}|[0-9]{6,}",  # keys and UUIDs; phone numbers
    re.IGNORECASE,
)
_SEARCHED_CHARACTERS_MAX = 4 * EXCERPT_CHARACTERS_MAX
_STRINGS_MAX = 8
"""How many of an answer's sentences are looked at."""


def judge(heard: Answer | Silence, sent_as: Dialect) -> SendOutcome:
    """Say what became of a text that was sent in this dialect."""
    if isinstance(heard, Silence):
        return Uncertain(f"no answer: {heard.error}") if heard.written else Trouble("unreachable", heard.error)
    try:
        body = decode(heard.body)
    except Unreadable:
        body = None
    if 200 <= heard.status < 300:  # noqa: PLR2004  success, RFC 9110 §15.3
        return _taken(heard.status, body)
    if license_missing(body):
        return Paused("license", "Evolution's license has to be activated")
    message = _message(body)
    if heard.status in _GATEWAY_TIMEOUTS and message is None:
        return Uncertain(f"a proxy before Evolution gave up waiting ({heard.status})")
    return _by_object(message) or _by_text(heard.status, list(_strings(message)), sent_as)


def confirmed(trouble: Trouble, state: InstanceState | None) -> Trouble | Paused:
    """What a failed send means once the instance's state has been asked for (None: nothing was heard).

    A closed instance pauses its lane. An open one whose sends fail does not: "open" can be a lie (#2403), but trying
    again is the only way to learn that it is over.
    """
    return trouble if state is None else pause_for(state) or trouble


def _taken(status: int, body: object) -> Sent | Uncertain:
    key_id = text_at(body, "key", "id")
    if key_id is None:
        return Uncertain(f"answered {status} without a message id")
    return Sent(key_id, text_at(body, "key", "remoteJid"))


def _message(body: object) -> object:
    """What Evolution says: in `response.message`; a proxy or a fork may have it elsewhere. None for nothing."""
    for found in (at(body, "response", "message"), at(body, "message"), at(body, "error")):
        if found is not None:
            return found
    return body if isinstance(body, str) else None


def _strings(message: object) -> Iterator[str]:
    """Its sentences: one, some in a list, or in a list within a list as validation writes them."""
    if isinstance(message, list):
        for each in message[:_STRINGS_MAX]:
            yield from _strings(each)
    elif isinstance(message, str):
        yield message
    elif isinstance(message, dict):
        yield from _strings(message.get("message"))


def _by_object(message: object) -> Rejected | None:
    """`[{"jid", "exists": false, "number"}]`: WhatsApp does not know the number."""
    for each in message if isinstance(message, list) else [message]:
        if at(each, "exists") is False:
            if LID_DOMAIN in f"{text_at(each, 'jid')} {text_at(each, 'number')}":
                return Rejected("lid_not_found", "WhatsApp was not found to know this lid")
            return Rejected("not_on_whatsapp", "the number is not on WhatsApp")
    return None


def _by_text(status: int, said: list[str], sent_as: Dialect) -> SendOutcome:
    text = " / ".join(said)
    wanted = next((dialect for sign, dialect in _WANTED if sign in text), None)
    if wanted is not None:
        if wanted != sent_as:
            return WrongDialect(wanted)
        return Rejected("validation", _reason("the request is not valid", status, text))
    for pattern, refusal, sentence in _BY_TEXT:
        if any(map(pattern.search, said)):
            return Rejected(refusal, sentence)
    transient = _TRANSIENT.search(text)
    if transient is not None:
        return Trouble(_fault(transient.lastgroup), _reason("Evolution could not send", status, text))
    if status >= 500 or status in _LATER:  # noqa: PLR2004  a server's fault, RFC 9110 §15.6
        return Trouble("other", _reason("Evolution failed", status, text))
    return _final(status, text)


def _fault(group: str | None) -> Fault:
    match group:
        case "closed" | "rate_limited" | "not_loaded" | "timed_out":
            return group
        case _:
            return "other"


def _final(status: int, text: str) -> Rejected:
    if status in _BY_STATUS:
        return Rejected(*_BY_STATUS[status])
    if text == _OBJECT:  # a 404 thrown inside a send, of which the wrapping leaves nothing
        return Rejected("refused", f"refused ({status}) without a reason, as for a group that does not exist")
    kind: Refusal = "validation" if "requires property" in text or "Invalid format" in text else "refused"
    return Rejected(kind, _reason("Evolution refused", status, text))


def _reason(sentence: str, status: int, text: str) -> str:
    excerpt = _excerpt(text)
    return f"{sentence} ({status}): {excerpt}" if excerpt else f"{sentence} ({status})"


def _excerpt(text: str) -> str:
    """The beginning of what was said, on one line, without URLs, long numbers and what could be a key."""
    if len(text) > _SEARCHED_CHARACTERS_MAX:  # cut between words: half a key looks like none
        text = text[:_SEARCHED_CHARACTERS_MAX].rpartition(" ")[0]
    line = " ".join(_SECRETS.sub("***", text).split())
    return "".join(filter(str.isprintable, line))[:EXCERPT_CHARACTERS_MAX]
