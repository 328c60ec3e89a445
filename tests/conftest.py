"""Fixtures that every test may ask for: real stores, real nodes, an HTTP client.

Stores that are shared live as long as one test worker and are emptied before each test; a test that crashes its
store asks for one of its own. What a node wrote is shown when its test fails.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from pathlib import Path

import aiohttp
import pytest
from hypothesis import settings

from tests.support.forked import Fork
from tests.support.node import NodeProcess, http_client
from tests.support.valkey import ValkeyServer, redis_binary, served
from tests.support.valkey_cluster import ValkeyCluster

settings.register_profile("quick", max_examples=int(os.environ.get("EXAMPLES", "25")), deadline=None)
settings.load_profile("quick")
"""Of each property that names no number itself; `EXAMPLES=1000 make test` looks for longer."""
MUTANT = "test_a_check_that_is_missing_is_noticed["
LONG = (
    "test_bench_smoke.py",
    "test_bench_sends_smoke.py",
    "test_bench_inventory_smoke.py",
    "test_inventory_crash.py",
    "test_seeds.py",
    "test_store_model.py",
    "test_channel_ear.py",
    "test_drain.py",
    "test_workers.py",
    "test_crash_at_each_step.py",
    "test_cache_coherence_model.py",
    "test_docs.py",
)
"""Files that take long [10 s … 70 s, measured]: begun last, they would keep one worker busy and the others waiting."""
NODES = pytest.StashKey[list[NodeProcess]]()
NodeFactory = Callable[..., NodeProcess]


def pytest_sessionstart() -> None:
    """Say that there is no loop yet: looptime asks for one even in plain tests, and would leave a new one unclosed."""
    asyncio.set_event_loop(None)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long files first, the others in the order they have. Of the mutants of scripts every eighth, unless one is
    named: `make mutate` tries them all."""
    items.sort(key=lambda item: item.path.name not in LONG)
    if not any("::" in argument for argument in config.args):
        mutants = [item for item in items if item.name.startswith(MUTANT)]
        left_out = set(mutants) - set(sorted(mutants, key=lambda item: item.nodeid)[::8])
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the nodes of a failed test wrote to its report."""
    report = yield
    if report.failed:
        report.sections.extend((f"node {node.port}", node.output()) for node in item.stash.get(NODES, []))
    return report


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[ValkeyServer]:
    """One Valkey for all tests of this worker; use `valkey`."""
    yield from served(ValkeyServer())


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[ValkeyServer]:
    """One Debian redis-server for all tests of this worker; use `redis_server`."""
    binary = redis_binary()
    if binary is None:
        if os.environ.get("CI") == "true":
            pytest.fail("redis-server is not installed, and CI must test against it")
        pytest.skip("redis-server is not installed")
    yield from served(ValkeyServer(binary))


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[ValkeyCluster]:
    """One Valkey Cluster of three masters for all tests of this worker; use `cluster`."""
    cluster = ValkeyCluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


@pytest.fixture
def cluster(shared_cluster: ValkeyCluster) -> ValkeyCluster:
    """An empty Valkey Cluster. Don't crash or freeze this one."""
    shared_cluster.command("FLUSHALL")
    return shared_cluster


@pytest.fixture
def valkey(shared_valkey: ValkeyServer) -> ValkeyServer:
    """An empty Valkey. Don't crash or freeze this one."""
    return _emptied(shared_valkey)


@pytest.fixture
def redis_server(shared_redis: ValkeyServer) -> ValkeyServer:
    """An empty Redis 7.0. Don't crash or freeze this one."""
    return _emptied(shared_redis)


@pytest.fixture(params=["valkey", "redis_server"])
def any_store(request: pytest.FixtureRequest) -> ValkeyServer:
    """Runs the test once on Valkey and once on Redis 7.0."""
    store: ValkeyServer = request.getfixturevalue(request.param)
    return store


@pytest.fixture(params=["valkey", "redis_server", "cluster"])
def any_topology(request: pytest.FixtureRequest) -> ValkeyServer | ValkeyCluster:
    """Runs the test on Valkey, on Redis 7.0, and on a Valkey Cluster."""
    store: ValkeyServer | ValkeyCluster = request.getfixturevalue(request.param)
    return store


@pytest.fixture
def own_valkey() -> Iterator[ValkeyServer]:
    """A Valkey of the test's own, to be killed, frozen and restarted."""
    yield from served(ValkeyServer())


@pytest.fixture
def make_node(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[NodeFactory]:
    """Makes nodes (not started) that are ended with the test: `make_node({"NAME": "value"}, redis_url=…)`."""
    made: list[NodeProcess] = request.node.stash.setdefault(NODES, [])

    def make(
        environment: Mapping[str, str] | None = None,
        *,
        data_dir: Path | None = None,
        redis_url: str | None = None,
        failpoints: str = "",
    ) -> NodeProcess:
        directory = data_dir or tmp_path / f"data-{len(made)}"
        made.append(NodeProcess(directory, environment, redis_url=redis_url, failpoints=failpoints))
        made[-1].begin = Fork
        return made[-1]

    yield make
    for node in made:
        node.close()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client for one test."""
    async with http_client() as session:
        yield session


def _emptied(server: ValkeyServer) -> ValkeyServer:
    server.command("FLUSHALL")
    return server
