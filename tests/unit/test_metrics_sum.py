"""The metrics of several processes as one: what is added, what is not, and that both formats can still be written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from router.edge.metrics import Metrics
from router.edge.metrics_sum import Families, Family, Series, added, growing
from router.edge.usecase import Reply

NUMBERS = st.floats(0, 1e6, allow_nan=False).map(round)


def families_of(**values: float) -> list[Family]:
    """One process's numbers: each name is a family of its own; the kind is a counter's if it ends in `_total`."""
    return [
        Family(
            name.removesuffix("_total"),
            "x",
            "counter" if name.endswith("_total") else "gauge",
            [Series(name, (), value)],
        )
        for name, value in values.items()
    ]


def flat(families: Families) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every number by its name and labels."""
    return {(each.name, each.labels): each.value for family in families for each in family.series}


@given(st.lists(st.dictionaries(st.sampled_from(["a_total", "b_total", "c", "d"]), NUMBERS), min_size=1, max_size=5))
def test_numbers_are_added_by_name_and_label(processes: list[dict[str, float]]) -> None:
    """In whatever order the processes come, and whichever of them has a series."""
    each = [families_of(**values) for values in processes]
    wanted: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for values in processes:
        for name, value in values.items():
            wanted[name, ()] = wanted.get((name, ()), 0) + value

    assert flat(added(each)) == wanted
    assert flat(added(reversed(each))) == wanted
    assert flat(added([added(each[:1]), *each[1:]])) == wanted


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("buzon_oldest_waiting_seconds", 7),
        ("buzon_nodes_alive", 7),
        ("process_start_time_seconds", 3),
        ("python_info", 7),
        ("process_open_fds", 10),
        ("buzon_open_batches", 10),
        ("buzon_workers_answering", 10),
    ],
)
def test_a_gauge_whose_sum_would_mean_nothing_is_not_added(name: str, wanted: float) -> None:
    """The oldest is the oldest of all, and everybody counts the same nodes."""
    summed = flat(added([families_of(**{name: 3}), families_of(**{name: 7})]))

    assert summed == {(name, ()): wanted}


def test_what_only_grows_outlives_its_process() -> None:
    """Counters and histograms; a gauge is gone with its process."""
    metrics = counted(3)

    kept = {family.name for family in growing(metrics.families())}

    assert {"buzon_messages_accepted", "buzon_batch_messages", "process_cpu_seconds"} <= kept
    assert not {"buzon_open_batches", "buzon_workers_answering", "buzon_build", "python_info"} & kept


def counted(messages: int) -> Metrics:
    """Metrics of a process that has taken so many messages."""
    metrics = Metrics("1.2.3")
    metrics.accepted.inc(messages)
    metrics.batch_messages.observe(messages)
    metrics.open_batches.set(messages)
    for _ in range(messages):
        metrics.route("GET", f"/{messages}").count(200)
    return metrics


def sample(reply: Reply, line: str) -> float:
    """The number at the end of the page's only line that begins so."""
    (found,) = [each for each in reply.body.decode().splitlines() if each.startswith(f"{line} ")]
    return float(found.rpartition(" ")[2])


async def page_of(metrics: Metrics, *others: Metrics, accept: str = "text/plain") -> Reply:
    """What a scraper of the first gets when the others are its siblings."""

    async def sum_up(own: Families) -> Families:
        return added([own, *(each.families() for each in others)])

    metrics.sum_up = sum_up
    return await metrics.answer(accept)


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text; version=1.0.0"])
async def test_the_page_of_a_worker_is_that_of_all(accept: str) -> None:
    """The same families and labels as those of one node, in the same order and either format."""
    alone = counted(1).page(accept)

    reply = await page_of(counted(1), counted(2), counted(3), accept=accept)

    assert reply.headers == alone.headers
    assert heads(reply) == heads(alone)
    assert sample(reply, "buzon_messages_accepted_total") == 6
    assert sample(reply, 'buzon_batch_messages_bucket{le="2.0"}') == 2
    assert sample(reply, "buzon_batch_messages_sum") == 6
    assert sample(reply, "buzon_open_batches") == 6
    assert sample(reply, "buzon_workers_answering") == 3
    assert sample(reply, 'buzon_http_requests_total{method="GET",route="/3",status="2xx"}') == 3
    assert reply.body.decode().count("buzon_build_info{") == 1
    if "openmetrics" in accept:
        assert list(parse_openmetrics(reply.body.decode()))  # type: ignore[no-untyped-call]  # the parser has no types


def heads(reply: Reply) -> list[str]:
    """The names and kinds of the page's families."""
    return [line for line in reply.body.decode().splitlines() if line.startswith("# TYPE")]


async def test_the_page_of_a_node_of_its_own_is_its_own() -> None:
    """Nothing is asked or added for it."""
    metrics = counted(2)

    reply = await metrics.answer("")

    assert sample(reply, "buzon_messages_accepted_total") == 2
    assert sample(reply, "buzon_workers_answering") == 1
