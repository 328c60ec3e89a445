"""Publishing, by CPU-second of the node, beside a handler that decodes the body and answers a constant.

Nobody listens: what fan-out costs is measured with the channels. Afterwards every message that was answered has its
offset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.bench import report
from tests.bench.figures import Figure, Turn
from tests.bench.publish_requests import CHANNELS, PATH, PublishSpec, channel_of
from tests.bench.rig import Rig
from tests.bench.throughput import Accept, Baseline, Scenario

BASE, PUBLISH = "do-nothing POST /api/queue/publish", "publish"
TITLES = {
    BASE: "aiohttp handler of POST /api/queue/publish that decodes and answers a constant",
    PUBLISH: "channels: POST /api/queue/publish, nobody listens",
}
SHARES: Sequence[report.Share] = ((PUBLISH, BASE, 1.5),)
SPEC = PublishSpec()


class Publish(Accept):
    """The node takes messages for channels."""

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig, SPEC)

    async def check(self) -> list[str]:
        """One more onto each channel: its offset counts those before."""
        published = 0
        for number in range(CHANNELS):
            body = {"channel": channel_of(number), "message": None}
            async with self._rig.http.post(f"{self._node.process.url}{PATH}", json=body) as answer:
                published += (await answer.json())["offset"] - 1
        return [] if published == self._answered else [f"{self._answered} answered, {published} have an offset"]


def scenarios(rig: Rig) -> dict[str, Scenario]:
    """In the order of their turns."""
    return {BASE: Baseline(rig, SPEC), PUBLISH: Publish(rig)}


def figures(turns: Mapping[str, Sequence[Turn]]) -> list[Figure]:
    """Both speeds, then the share."""
    return report.speed_figures(turns, TITLES, SHARES)
