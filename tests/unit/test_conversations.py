"""One contact, one conversation, under whichever name it writes: the identities of the facts, section 2.4."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from actors.core.policy import Policy
from router.fake_evolution.identity import IDENTITIES, group_fields
from tests.support.doubles import Stage
from tests.support.inbound_rig import INSTANCE, LID, PHONE, InboundRig, says
from tests.support.until import passing
from tests.support.virtual_time import in_virtual_time

LID_ONLY: dict[str, Any] = {"remoteJid": LID}
BOTH: dict[str, Any] = {"remoteJid": LID, "remoteJidAlt": PHONE}
BOTH_2_4: dict[str, Any] = {"remoteJid": PHONE, "remoteJidAlt": LID}
PHONE_ONLY: dict[str, Any] = {"remoteJid": PHONE}
GROUP = "120363012345678901@g.us"
DELIVERED = None
"""Between two messages: all that waited is gone."""


def contacts(rig: InboundRig) -> list[str]:
    """Whom replies go to."""
    policies = [msgspec.json.decode(entry.terms.policy, type=Policy) for entry in rig.entries]
    return [each.conversation.contact for each in policies if each.conversation is not None]


@in_virtual_time
@pytest.mark.parametrize("identity", [name for name in IDENTITIES if name != "lid_only"])
async def test_every_version_names_the_phone(identity: str) -> None:
    """In one field or another: the conversation is the phone's."""
    async with Stage() as stage:
        rig = InboundRig(stage)
        rig.route()
        await rig.call(says(**IDENTITIES[identity](PHONE, LID)))
        assert (rig.keys(), contacts(rig)) == ([PHONE], [PHONE])


@in_virtual_time
@pytest.mark.parametrize(
    ("messages", "keys", "replies_go_to"),
    [
        ([LID_ONLY, LID_ONLY], [LID, LID], [LID, LID]),
        # A switch in the middle of a burst splits nothing; replies go to the phone as soon as it is known.
        ([LID_ONLY, BOTH, PHONE_ONLY], [LID, LID, LID], [LID, PHONE, PHONE]),
        ([LID_ONLY, BOTH, LID_ONLY], [LID, LID, LID], [LID, PHONE, PHONE]),
        ([LID_ONLY, BOTH_2_4], [LID, LID], [LID, PHONE]),
        # When nothing waits any more the phone's key takes over, also for events that name the lid alone.
        ([LID_ONLY, BOTH, DELIVERED, LID_ONLY], [LID, LID, PHONE], [LID, PHONE, PHONE]),
        ([BOTH, LID_ONLY, PHONE_ONLY], [PHONE, PHONE, PHONE], [PHONE, PHONE, PHONE]),
        ([PHONE_ONLY, BOTH, LID_ONLY], [PHONE, PHONE, PHONE], [PHONE, PHONE, PHONE]),
        # Nobody can know that these are one.
        ([PHONE_ONLY, LID_ONLY], [PHONE, LID], [PHONE, LID]),
    ],
)
async def test_a_contact_that_changes_its_name(
    messages: list[dict[str, Any] | None], keys: list[str], replies_go_to: list[str]
) -> None:
    """One after the other."""
    async with Stage() as stage:
        rig = InboundRig(stage)
        rig.route()
        for number, names in enumerate(messages):
            if names is DELIVERED:
                rig.close()
            else:
                await rig.call(says(key_id=f"k{number}", **names))
        assert (rig.keys(), contacts(rig)) == (keys, replies_go_to)


@in_virtual_time
async def test_a_burst_that_arrives_at_once() -> None:
    """Each is taken after the one before is stored, so the second sees what the first has opened."""
    async with Stage() as stage:
        rig = InboundRig(stage)
        rig.route()
        rig.before_append = lambda _key: passing(0.1)
        burst = [LID_ONLY, BOTH, BOTH_2_4, LID_ONLY]
        await asyncio.gather(*(rig.call(says(key_id=f"k{n}", **names)) for n, names in enumerate(burst)))
        assert rig.keys() == [LID] * 4


@in_virtual_time
async def test_contacts_do_not_wait_for_each_other() -> None:
    """A store that is slow for one is no reason to stop another."""
    async with Stage() as stage:
        rig = InboundRig(stage)
        rig.route()

        async def slow(key: str) -> None:
            if PHONE in key:
                await passing(0.5)

        rig.before_append = slow
        began = stage.clock.monotonic()
        first = asyncio.ensure_future(rig.call(says()))
        await passing(0.1)
        await rig.call(says(key_id="other", remoteJid="5215500000001@s.whatsapp.net"))
        assert stage.clock.monotonic() - began < 0.2
        await first


@in_virtual_time
async def test_one_instances_names_are_no_others() -> None:
    """Who owns one cannot send another's replies to somebody else."""
    async with Stage() as stage:
        rig = InboundRig(stage)
        rig.route("*")
        await rig.call(says(**BOTH).replace(b'"ventas"', b'"soporte"'))
        await rig.call(says(key_id="k2", **LID_ONLY))
        assert [entry.terms.key for entry in rig.entries] == [f"soporte:{PHONE}", f"{INSTANCE}:{LID}"]


@in_virtual_time
async def test_a_group_is_one_conversation() -> None:
    """Whoever writes there; replies go to the group, and nothing is learned that would change a person's key."""
    async with Stage() as stage:
        rig = InboundRig(stage)
        rig.route()
        for number, identity in enumerate(("plain", "2.3.5", "2.4", "lid_only")):
            await rig.call(says(key_id=f"k{number}", **group_fields(identity, GROUP, PHONE, LID)))
        assert (rig.keys(), contacts(rig)) == ([GROUP] * 4, [GROUP] * 4)
