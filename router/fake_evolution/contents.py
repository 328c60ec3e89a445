"""Contents: a message of every kind that WhatsApp hands on, as Evolution puts it into `data`.

Pure. Where the words of a person are in each kind is what a receiver has to know.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from router.fake_evolution.dialects import Json

MEDIA_URL = "https://mmg.whatsapp.net/v/t62.7118-24/fake.enc"
VCARD = "BEGIN:VCARD\nVERSION:3.0\nFN:{}\nTEL;waid=5511988887777:+55 11 98888-7777\nEND:VCARD"


class Content(Struct, frozen=True, kw_only=True):
    """What a message holds: `type` becomes messageType, `context` contextInfo."""

    type: str
    message: Json
    context: Json | None = None


def content(kind: str, text: str, *, keeps_extended: bool) -> Content:
    """A message of that kind which says `text`. ValueError for a kind that there is not.

    `keeps_extended`: 1.8.2 and forks leave a text in `extendedTextMessage`, 2.x moves it to `conversation`.
    """
    make = KINDS.get("extended_text" if kind == "text" and keeps_extended else kind)
    if make is None:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, not {kind!r}")
    return make(text)


def _conversation(text: str) -> Content:
    return Content(type="conversation", message={"conversation": text})


def _extended(text: str) -> Content:
    return Content(type="extendedTextMessage", message={"extendedTextMessage": {"text": text}})


def _media(name: str, mimetype: str) -> Callable[[str], Content]:
    def make(text: str) -> Content:
        return Content(type=name, message={name: {"url": MEDIA_URL, "mimetype": mimetype, "caption": text}})

    return make


def _document_with_caption(text: str) -> Content:
    document = {"url": MEDIA_URL, "mimetype": "application/pdf", "fileName": "orden.pdf", "caption": text}
    name = "documentWithCaptionMessage"
    return Content(type=name, message={name: {"message": {"documentMessage": document}}})


def _audio(_text: str) -> Content:
    audio = {"url": MEDIA_URL, "mimetype": "audio/ogg; codecs=opus", "seconds": 4, "ptt": True}
    return Content(type="audioMessage", message={"audioMessage": audio})


def _sticker(_text: str) -> Content:
    return Content(type="stickerMessage", message={"stickerMessage": {"url": MEDIA_URL, "mimetype": "image/webp"}})


def _contact(text: str) -> Content:
    contact = {"displayName": text, "vcard": VCARD.format(text)}
    return Content(type="contactMessage", message={"contactMessage": contact})


def _location(text: str) -> Content:
    place = {"degreesLatitude": -23.5505, "degreesLongitude": -46.6333, "name": text}
    return Content(type="locationMessage", message={"locationMessage": place})


def _list(text: str) -> Content:
    chosen = {"title": text, "listType": "SINGLE_SELECT", "singleSelectReply": {"selectedRowId": "row-1"}}
    return Content(type="listResponseMessage", message={"listResponseMessage": chosen})


def _list_row(text: str) -> Content:
    chosen = {"singleSelectReply": {"selectedRowId": text}}
    return Content(type="listResponseMessage", message={"listResponseMessage": chosen})


def _button(text: str) -> Content:
    pressed = {"selectedButtonId": text, "selectedDisplayText": text}
    return Content(type="buttonsResponseMessage", message={"buttonsResponseMessage": pressed})


def _template_button(text: str) -> Content:
    pressed = {"selectedId": text, "selectedIndex": 0}
    return Content(type="templateButtonReplyMessage", message={"templateButtonReplyMessage": pressed})


def _view_once(text: str) -> Content:
    image = {"url": MEDIA_URL, "mimetype": "image/jpeg", "caption": text, "viewOnce": True}
    return Content(type="viewOnceMessageV2", message={"viewOnceMessageV2": {"message": {"imageMessage": image}}})


def _ad(text: str) -> Content:
    ad = {"title": "Oferta", "body": "Escribinos por WhatsApp", "sourceType": "ad", "sourceId": "120210000000000001"}
    return Content(type="conversation", message={"conversation": text}, context={"externalAdReply": ad})


def _reaction(text: str) -> Content:
    on = {"remoteJid": "5511988887777@s.whatsapp.net", "fromMe": True, "id": "3EB0FAKE"}
    return Content(type="reactionMessage", message={"reactionMessage": {"key": on, "text": text}})


KINDS: dict[str, Callable[[str], Content]] = {
    "text": _conversation,
    "extended_text": _extended,
    "image": _media("imageMessage", "image/jpeg"),
    "video": _media("videoMessage", "video/mp4"),
    "document": _media("documentMessage", "application/pdf"),
    "document_with_caption": _document_with_caption,
    "audio": _audio,
    "sticker": _sticker,
    "contact": _contact,
    "location": _location,
    "list": _list,
    "list_row": _list_row,
    "button": _button,
    "template_button": _template_button,
    "view_once": _view_once,
    "ad": _ad,
    "reaction": _reaction,
}
WITHOUT_TEXT = ("audio", "sticker")
