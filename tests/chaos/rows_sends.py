"""Rows 65 and 66: kill -9 of nodes and of Evolution amid WhatsApp sends, and an Evolution that is away for a minute.

What was promised arrives, in order for each contact. At an Evolution that takes message ids (2.4) nothing comes twice;
at one that does not (2.3) only what was on its way when something was killed.
"""

from __future__ import annotations

from time import monotonic

from tests.chaos.chaos import Chaos
from tests.chaos.rig import Rig
from tests.chaos.rig_evolution import INSTANCES, EvolutionRig
from tests.chaos.rows import Allows, Setup, row
from tests.chaos.rows_channels import LIGHT
from tests.chaos.send_run import Sending
from tests.support.until import until

CALM_S = 2.0
KILLS = 3
AWAY_S = 60.0
SHORTLY_AWAY_S = 2.0
TASKS = 1000
CONTACTS = 20
HELD_S = 30.0
SEND_TIMEOUT_S = 5.0
ENVIRONMENT = (("MAX_RETRIES", "3"), ("TASK_RETRY_DELAY", "1s"), ("EVOLUTION_TIMEOUT", f"{SEND_TIMEOUT_S:g}s"))


def setup(version: str, limit_s: float = 90.0) -> Setup:
    """Three nodes, an Evolution of that version, and a few webhooks, which must not notice."""
    return Setup(load=LIGHT, load_s=0, limit_s=limit_s, rig=f"evolution {version}", environment=ENVIRONMENT)


def with_evolution(rig: Rig) -> EvolutionRig:
    """The rig as what it is."""
    assert isinstance(rig, EvolutionRig)
    return rig


async def kill_nodes(rig: Rig, chaos: Chaos) -> None:
    """Kill the node that sends for an instance, start it again, kill another."""
    async with Sending(with_evolution(rig), chaos) as sending:
        await chaos.balanced()
        await chaos.passing(CALM_S)
        owner = await sending.owner_of(INSTANCES[0])
        first = next(node for node in rig.nodes if node.name == owner)
        others = [node for node in rig.nodes if node is not first]
        for victim in (first, chaos.random.choice(others)):
            await sending.kill(victim)
            await chaos.flushed_by_others(victim)
            await chaos.passing(CALM_S)
            await chaos.start(victim)
            await chaos.balanced()
            await chaos.passing(CALM_S)


async def kill_evolution(rig: Rig, chaos: Chaos) -> None:
    """Kill Evolution amid sends, again and again, and start it a little later."""
    async with Sending(with_evolution(rig), chaos) as sending:
        await chaos.balanced()
        for _ in range(KILLS):
            await chaos.passing(CALM_S)
            await sending.kill_evolution()
            await chaos.passing(SHORTLY_AWAY_S)
            await sending.start_evolution()
        await chaos.passing(CALM_S)


@row(65, title="kill -9 of nodes amid WhatsApp sends (2.3)", allows=Allows(late_s=4.0), setup=setup("2.3"))
async def kill_nodes_2_3(rig: Rig, chaos: Chaos) -> None:
    """Others go on with their instances; twice comes only what they had on its way."""
    await kill_nodes(rig, chaos)


@row("65b", title="the same, and Evolution takes message ids (2.4)", allows=Allows(late_s=4.0), setup=setup("2.4"))
async def kill_nodes_2_4(rig: Rig, chaos: Chaos) -> None:
    """Nothing comes twice."""
    await kill_nodes(rig, chaos)


@row("65c", title=f"kill -9 of Evolution amid sends, {KILLS} times (2.3)", setup=setup("2.3"))
async def kill_evolution_2_3(rig: Rig, chaos: Chaos) -> None:
    """Twice comes only what it had sent and not answered."""
    await kill_evolution(rig, chaos)


@row("65d", title="the same (2.4)", setup=setup("2.4"))
async def kill_evolution_2_4(rig: Rig, chaos: Chaos) -> None:
    """Nothing comes twice."""
    await kill_evolution(rig, chaos)


async def away(rig: Rig, chaos: Chaos, *, frozen: bool, restarts: bool = False) -> None:
    """Let Evolution be gone for a minute while a thousand tasks come in, and hold the nodes to what they say of it.
    `restarts`: meanwhile a node that sends is killed and started again, and knows nothing of Evolution then."""
    evolution = with_evolution(rig)
    options = {"contacts": CONTACTS, "rate": 100.0, "messages": -(-TASKS // (CONTACTS * len(INSTANCES)))}
    await chaos.balanced()  # a planned move would have what hangs sent again by the new owner
    async with Sending(evolution, chaos, options) as sending:
        await until(lambda: _enough(sending, TASKS // 10), 10, every_s=0.02, what="some were sent")
        gone = monotonic()
        if frozen:
            sending.cut_off("Evolution frozen", INSTANCES, after_s=AWAY_S)
            evolution.evolution.freeze()
        else:
            await sending.kill_evolution()
        await until(lambda: _all_held(sending), HELD_S, every_s=0.1, what="all instances are held")
        chaos.note(f"all held {monotonic() - gone:.1f} s after it went")
        if restarts:
            owner = await sending.owner_of(INSTANCES[0])
            victim = next(node for node in rig.nodes if node.name == owner)
            await sending.kill(victim)
            await chaos.flushed_by_others(victim)
            await chaos.start(victim)
        count = await sending.over(AWAY_S - (monotonic() - gone))
        await chaos.passing(AWAY_S - (monotonic() - gone))
        held = await sending.held()
        chaos.expect(held >= len(INSTANCES), f"{held} instances were held after a minute")
        back = monotonic()
        if frozen:
            evolution.evolution.thaw()
        else:
            await sending.start_evolution()
        await until(lambda: _none_held(sending), HELD_S, every_s=0.1, what="no instance is held")
        chaos.note(f"{count:,} tasks, none held {monotonic() - back:.1f} s after it was back")
    for word in ("held", "free"):
        said = said_of(evolution, f"whatsapp instance {word}")
        chaos.expect(said >= len(INSTANCES), f"the logs say {said} times that an instance is {word}")


@row(66, title="Evolution killed, away for a minute, 1,000 tasks waiting (2.3)", setup=setup("2.3", limit_s=200))
async def evolution_killed(rig: Rig, chaos: Chaos) -> None:
    """All are sent when it is back, in order; none fails, and twice comes only what was on its way."""
    await away(rig, chaos, frozen=False)


@row("66b", title="Evolution frozen for a minute, 1,000 tasks waiting (2.3)", setup=setup("2.3", limit_s=200))
async def evolution_frozen(rig: Rig, chaos: Chaos) -> None:
    """The same; what its sockets took while it stood was on its way, too, and is no more than may be out at once."""
    await away(rig, chaos, frozen=True)


@row(
    "66c",
    title="the same (2.4), a node killed and started meanwhile",
    allows=Allows(late_s=4.0),
    setup=setup("2.4", limit_s=200),
)
async def evolution_frozen_2_4(rig: Rig, chaos: Chaos) -> None:
    """Nothing comes twice, though what hung is sent again, and one node has never heard what Evolution is."""
    await away(rig, chaos, frozen=True, restarts=True)


def said_of(rig: EvolutionRig, event: str) -> int:
    """How often the nodes logged it."""
    paths = {path for node in rig.nodes for path in (node.process.child.stdout_path, node.process.child.stderr_path)}
    return sum(path.read_text().count(f'"{event}"') for path in paths)


async def _enough(sending: Sending, count: int) -> bool:
    return await sending.acknowledged() >= count


async def _all_held(sending: Sending) -> bool:
    return await sending.held() >= len(INSTANCES)


async def _none_held(sending: Sending) -> bool:
    return await sending.held() == 0
