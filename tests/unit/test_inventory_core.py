"""The inventory's pure part: what may be stored, and that a folded run of events is the run."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.core.inventory import (
    CANTIDAD_MAX,
    Event,
    EventType,
    InventarioCreado,
    InventarioEliminado,
    LineaAgregada,
    data_of,
    fold,
    is_cantidad,
    is_fecha,
    is_text,
    missing_before,
)

TYPES: dict[type, EventType] = {
    InventarioCreado: "InventarioCreado",
    LineaAgregada: "LineaAgregada",
    InventarioEliminado: "InventarioEliminado",
}


def event(seq: int, data: InventarioCreado | LineaAgregada | InventarioEliminado) -> Event:
    """An event with its number."""
    raw = msgspec.Raw(msgspec.json.encode(data))
    return Event(seq=seq, event_id=f"evt_{seq}", type=TYPES[type(data)], data=raw, at="2026-01-01T00:00:00.000000Z")


@dataclass
class Rows:
    """The projection as a dictionary: name and total of each inventory."""

    held: dict[int, tuple[str, int]] = field(default_factory=dict)

    def apply_each(self, events: list[Event]) -> None:
        """One by one, as the events say."""
        for each in events:
            match data_of(each):
                case InventarioCreado(id=key, cliente=cliente):
                    self.held[key] = (cliente, 0)
                case LineaAgregada(inventario_id=key, cantidad=cantidad):
                    self.held[key] = (self.held[key][0], self.held[key][1] + cantidad)
                case InventarioEliminado(id=key):
                    del self.held[key]

    def apply_folded(self, events: list[Event]) -> None:
        """All at once."""
        changes = fold(events)
        for made in changes.made:
            self.held[made.inventario_id] = (made.cliente, made.total_items)
        for key, quantity in changes.grown:
            self.held[key] = (self.held[key][0], self.held[key][1] + quantity)
        for key in changes.removed:
            self.held.pop(key, None)


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """Events as commands could have made them: made once, grown while there, removed once."""
    alive: list[int] = []
    made = 0
    events: list[Event] = []
    for seq in range(1, draw(st.integers(1, 40))):
        step = draw(st.sampled_from(["make", "grow", "grow", "remove"])) if alive else "make"
        if step == "make":
            made += 1
            alive.append(made)
            events.append(event(seq, InventarioCreado(id=made, cliente=f"c{made}", fecha_caducidad=None)))
            continue
        key = draw(st.sampled_from(alive))
        if step == "remove":
            alive.remove(key)
            events.append(event(seq, InventarioEliminado(id=key)))
        else:
            cantidad = draw(st.integers(1, CANTIDAD_MAX))
            events.append(event(seq, LineaAgregada(id=seq, inventario_id=key, producto="p", cantidad=cantidad)))
    return events


@given(histories(), st.data())
def test_a_folded_run_changes_what_its_events_change(events: list[Event], data: st.DataObject) -> None:
    """Wherever a history is cut into runs."""
    one_by_one, folded = Rows(), Rows()
    one_by_one.apply_each(events)
    while events:
        cut = data.draw(st.integers(1, len(events)))
        folded.apply_folded(events[:cut])
        events = events[cut:]
    assert folded == one_by_one


@given(histories())
def test_the_three_sets_hold_different_inventories(events: list[Event]) -> None:
    """Or the order in which they are written would matter."""
    changes = fold(events)
    keys = [each.inventario_id for each in changes.made] + [key for key, _ in changes.grown] + list(changes.removed)
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize(
    ("numbers", "watermark", "missing"),
    [
        ([], 7, None),
        ([1, 2, 3], 0, None),
        ([8, 9], 7, None),
        ([6, 7, 8], 7, None),
        ([6, 7], 7, None),
        ([9], 7, 8),
        ([8, 10], 7, 9),
        ([2], 0, 1),
        ([8, 8], 7, 9),
    ],
)
def test_a_gap_is_named_by_its_first_number(numbers: list[int], watermark: int, missing: int | None) -> None:
    """What is known already may come again; what lacks may not be passed over."""
    events = [event(number, InventarioEliminado(id=number)) for number in numbers]
    assert missing_before(events, watermark) == missing


@pytest.mark.parametrize("text", ["a", "ñ" * 200, " a ", "😀", "\u200ba", "👩\u200d🔧"])
def test_a_text_that_may_be_stored(text: str) -> None:
    """Up to 200 characters of any script."""
    assert is_text(text)


@pytest.mark.parametrize("text", ["", " ", "\t\n", "a" * 201, "a\0b", "\u200b", "\ufeff \u200b", "\u2060\u200e"])
def test_a_text_that_may_not(text: str) -> None:
    """Empty, blank, invisible, too long, or with the one character that PostgreSQL cannot hold."""
    assert not is_text(text)


@pytest.mark.parametrize(
    ("number", "allowed"), [(1, True), (CANTIDAD_MAX, True), (0, False), (-1, False), (CANTIDAD_MAX + 1, False)]
)
def test_a_quantity(number: int, allowed: bool) -> None:
    """Positive, and of a size that no total can overflow with."""
    assert is_cantidad(number) is allowed


@pytest.mark.parametrize(
    ("day", "allowed"),
    [
        (None, True),
        (date(2030, 1, 31), True),
        (date.min, False),
        (date.min + timedelta(1), True),
        (date.max, False),
        (date.max - timedelta(1), True),
    ],
)
def test_a_day_of_expiry(day: date | None, allowed: bool) -> None:
    """None is one; those that would be stored as infinite are not."""
    assert is_fecha(day) is allowed
