"""What a send takes for a recipient, and which recipients are one contact."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.phones import BadPhone, Recipient, bare_jid, parse_phone

DIGITS = st.text("0123456789", min_size=8, max_size=15)


@pytest.mark.parametrize(
    ("phone", "number"),
    [
        ("5215512345678", "5215512345678"),
        ("+52123456789", "52123456789"),
        ("+52 1 (55) 1234-5678", "5215512345678"),
        ("(+52) 1 [55] 1234.5678", "5215512345678"),
        (" 5512345678 ", "5512345678"),
        ("+54\u00a09\u202f11\u20111234\u20135678", "5491112345678"),
        ("12345678", "12345678"),
        ("123456789012345", "123456789012345"),
    ],
)
def test_a_number_is_sent_as_its_digits(phone: str, number: str) -> None:
    """Nothing added, nothing taken away: which digits a country drops is WhatsApp's affair."""
    assert parse_phone(phone) == Recipient(number, f"{number}@s.whatsapp.net")


@pytest.mark.parametrize(
    ("phone", "contact"),
    [
        ("5215512345678@s.whatsapp.net", "5215512345678@s.whatsapp.net"),
        ("5215512345678:12@s.whatsapp.net", "5215512345678@s.whatsapp.net"),
        ("120363042911934455@g.us", "120363042911934455@g.us"),
        ("5511999999999-1612345678@g.us", "5511999999999-1612345678@g.us"),
        ("103899771998284@lid", "103899771998284@lid"),
        ("103899771998284:7@lid", "103899771998284@lid"),
    ],
)
def test_an_id_is_sent_as_it_is(phone: str, contact: str) -> None:
    """With its device, if it has one; the contact has none."""
    assert parse_phone(phone) == Recipient(phone, contact)


@pytest.mark.parametrize(
    "phone",
    [
        *("", " ", "+", "1234567", "1234567890123456", "++5215512345678", "52+15512345678", "5215512345678+"),
        *("+52 55 CALL-ME-1", "52/1/5512345678", "5215512345678\n", "52155\x001234567", "٣٤٥٦٧٨٩٠١٢٣"),
        *("@s.whatsapp.net", "5215512345678@", "5215512345678@c.us", "status@broadcast", "1@newsletter"),
        *("5215512345678@S.WHATSAPP.NET", "521 5512345678@s.whatsapp.net", "+5215512345678@s.whatsapp.net"),
        *(
            "5215512345678@s.whatsapp.net\n",
            "a@b@g.us",
            "1:@lid",
            "1:2:3@lid",
            "x" * 65 + "@g.us",
            "521@s-whatsapp.net",
        ),
    ],
)
def test_anything_else_is_refused(phone: str) -> None:
    """The answer names the field and says what would do."""
    with pytest.raises(BadPhone) as refused:
        parse_phone(phone)
    assert refused.value.pointer == "$.phone"
    assert refused.value.detail


@given(digits=DIGITS, plus=st.booleans(), data=st.data())
def test_how_a_number_is_written_does_not_matter(digits: str, plus: bool, data: st.DataObject) -> None:
    """Whatever is strewn between the digits, it is one recipient."""
    strewn = "".join(data.draw(st.text(" .-()[]", max_size=3)) + digit for digit in digits)
    assert parse_phone("+" * plus + strewn) == parse_phone(digits)


@given(digits=DIGITS)
def test_a_number_and_its_id_are_one_contact(digits: str) -> None:
    """So what goes to one keeps its order, by whichever name."""
    assert parse_phone(digits).contact == parse_phone(f"{digits}@s.whatsapp.net").contact


@given(st.text(max_size=40) | st.text("0123456789+ -@slidgu.net:", max_size=40))
def test_any_text_is_taken_or_refused(phone: str) -> None:
    """What is taken goes into a URL's body and into keys: plain ASCII without spaces, its contact a bare JID."""
    try:
        recipient = parse_phone(phone)
    except BadPhone:
        return
    assert recipient.number.isascii()
    assert not any(character.isspace() for character in recipient.number)
    assert bare_jid(recipient.contact) == recipient.contact
