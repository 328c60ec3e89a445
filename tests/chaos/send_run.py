"""Send run: senders of WhatsApp messages during a row, what is done to Evolution, and the verdict at the row's end.

Use as `async with Sending(rig, chaos, options) as sending:`; the verdict is given at the end of the block, when all
tasks have ended. Whatever cuts sends off must be noted with `cut_off`, or messages that come twice fail the row.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from time import time
from types import TracebackType
from typing import Any, Self

import msgspec

from actors.core.partition import partition_of_instance
from actors.core.tasks import FINAL
from actors.host import CONCURRENCY
from tests.chaos.chaos import Chaos
from tests.chaos.control import Remote
from tests.chaos.rig import Node
from tests.chaos.rig_evolution import INSTANCES, EvolutionRig, IdempotentRig
from tests.chaos.send_checker import Arrival, Deed, Ended, Found, Sends, check
from tests.chaos.send_load import Acknowledged, Begin
from tests.support.until import passing, until

STOP_S = 10.0
SENT_S = 45.0
ANSWER_S = 0.2
"""How long Evolution takes for its answer to a message that has gone out, so that some are always on their way."""
WRITTEN_DOWN_S = 0.5
"""From an answer to its outcome in the store, on a machine that others use."""
ON_THE_WAY_S = 1.0
"""How long what was written to a socket may take to be read, after whoever wrote it was killed."""
HELD = re.compile(r"^buzon_instances_held (\S+)$", re.MULTILINE)
PAGE = 1000


class Sending:
    """The senders of one row. `options` are fields of `Begin`; `answer_s`: how long Evolution's answers take."""

    def __init__(
        self, rig: EvolutionRig, chaos: Chaos, options: Mapping[str, Any] | None = None, *, answer_s: float = ANSWER_S
    ) -> None:
        self.rig = rig
        self.found: Found
        self._chaos = chaos
        self._options = options or {}
        self._answer_s = answer_s
        self._deeds: list[Deed] = []
        self._load: Remote

    async def __aenter__(self) -> Self:
        chaos = self._chaos
        self._load = await self.rig.helper("send_load")
        self._prefix = f"s{chaos.row.name}-{chaos.random.randrange(10**6)}"
        self._ledger = chaos.folder / "sends.jsonl"
        begin = Begin(
            ledger=str(self._ledger),
            nodes=self.rig.ports(),
            prefix=self._prefix,
            seed=str(chaos.random.random()),
            **{"instances": list(INSTANCES), **self._options},
        )
        await self.slow()
        await self._load.ask("begin", **msgspec.to_builtins(begin))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        given_up = await self._load.ask("stop", within_s=STOP_S * 2, grace_s=STOP_S)
        if kind is not None:
            return
        chaos = self._chaos
        chaos.expect(given_up == 0, f"{given_up} sends were not acknowledged within {STOP_S:g} s")
        acknowledged = [msgspec.json.decode(line, type=Acknowledged) for line in self._ledger.open("rb")]
        began = time()
        ended = await self.all_ended(acknowledged)
        arrivals = list(arrivals_in(self.rig.phones, self._prefix))
        (chaos.folder / "arrivals.jsonl").write_bytes(b"".join(msgspec.json.encode(a) + b"\n" for a in arrivals))
        (chaos.folder / "deeds.jsonl").write_bytes(b"".join(msgspec.json.encode(d) + b"\n" for d in self._deeds))
        self.found = found = check(
            Sends(
                acknowledged=acknowledged,
                arrivals=arrivals,
                ended=ended,
                deeds=self._deeds,
                idempotent=isinstance(self.rig, IdempotentRig),
            )
        )
        for problem in found.problems:
            chaos.problem(problem)
        chaos.note(
            f"{found.acknowledged:,} sends, {found.arrived:,} arrived, {found.twice} twice ({found.may} may), "
            f"{found.repeated} given to Evolution again under their id, all ended {time() - began:.1f} s after the last"
        )

    async def slow(self) -> None:
        """Have Evolution answer late, also after it was started again."""
        await self.rig.evolution_does("heal")
        await self.rig.evolution_does("fail", fault="sent-then-slow", times=None, delay_s=self._answer_s)

    async def over(self, within_s: float) -> int:
        """Wait until the senders have sent what they had to; gives how many messages that were."""
        count: int = await self._load.ask("over", within_s=within_s)
        return count

    async def acknowledged(self) -> int:
        """How many messages were promised to be sent."""
        count: int = await self._load.ask("acknowledged")
        return count

    async def owner_of(self, instance: str) -> str:
        """The node that sends for an instance."""
        return (await self._chaos.owners())[partition_of_instance(instance)][0]

    async def instances_of(self, *nodes: Node) -> frozenset[str]:
        """The instances that these nodes send for."""
        owners = await self._chaos.owners()
        names = {node.name for node in nodes}
        return frozenset(each for each in INSTANCES if owners[partition_of_instance(each)][0] in names)

    def cut_off(self, what: str, instances: Collection[str], *, each: int = CONCURRENCY, after_s: float = 0.0) -> Deed:
        """Sends of these instances may have been on their way now; `after_s`: and for so long from now on."""
        now = time()
        deed = Deed(
            what=what,
            since=now - self._answer_s - WRITTEN_DOWN_S,
            until=now + after_s + ON_THE_WAY_S,
            instances=frozenset(instances),
            each=each,
        )
        self._deeds.append(deed)
        return deed

    async def kill_evolution(self) -> None:
        """kill -9 amid sends."""
        self.cut_off("Evolution killed", INSTANCES)
        await self.rig.kill_evolution()

    async def start_evolution(self) -> None:
        """Start it again; it answers as late as before."""
        await self.rig.start_evolution()
        await self.slow()

    async def kill(self, node: Node) -> None:
        """kill -9 of a node amid sends."""
        instances = await self.instances_of(node)
        self.cut_off(f"{node.name} killed", instances)
        await self._chaos.kill(node)
        self._chaos.note(f"{node.name} killed, which sent for {', '.join(sorted(instances)) or 'none'}")

    async def held(self) -> int:
        """The instances that the living nodes hold, by their own metric."""
        total = 0
        for node in self._chaos.living():
            page = (await self.rig.client(node).call("GET", "/metrics")).body.decode()
            match = HELD.search(page)
            assert match is not None, "no buzon_instances_held in /metrics"
            total += int(float(match[1]))
        return total

    async def all_ended(self, acknowledged: Iterable[Acknowledged], within_s: float = SENT_S) -> dict[str, Ended]:
        """Wait until all tasks have ended, and give what became of them, by their ids."""
        wanted = {each.task_id for each in acknowledged}
        latest: dict[str, Ended] = {}

        async def over() -> bool:
            latest.update(await self._listed())
            return all(name in latest and latest[name].status in FINAL for name in wanted)

        try:
            await until(over, within_s, every_s=0.3)
        except AssertionError:
            open_still = [name for name in wanted if name not in latest or latest[name].status not in FINAL]
            self._chaos.problem(f"{len(open_still)} tasks have not ended after {within_s:g} s: {open_still[:4]}")
        return latest

    async def _listed(self) -> dict[str, Ended]:
        client = self.rig.client(next(node for node in self.rig.nodes if node.alive))
        found: dict[str, Ended] = {}
        for instance in self._options.get("instances", INSTANCES):
            for row in await client.listed("/tasks", "tasks", instance=instance, limit=PAGE):
                result = row["result"] or {}
                found[row["task_id"]] = Ended(
                    row["status"], result.get("evolution_key", ""), str(result.get("error", ""))
                )
        return found

    async def passing(self, seconds: float) -> None:
        """Let time pass while messages are sent."""
        await passing(seconds)


def arrivals_in(phones: Path, prefix: str) -> Iterable[Arrival]:
    """What reached phones in a row, in order, by the fake's output."""
    for line in phones.open("rb"):
        if b'"sent"' not in line or not line.endswith(b"\n"):
            continue
        note = msgspec.json.decode(line)
        if note["what"] == "sent" and note["text"].startswith(f"{prefix}/"):
            yield Arrival(note["text"], note["id"], datetime.fromisoformat(note["at"]).timestamp())
