"""Layout: from the URL of a store to the topology of its servers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from actors.adapters.valkey.cluster import Cluster
from actors.adapters.valkey.dialling import Dialler, StoreUrl
from actors.adapters.valkey.scripts import Script
from actors.adapters.valkey.sentinel import SentinelServer
from actors.adapters.valkey.shard import S, ShardMaker
from actors.adapters.valkey.topology import OneServer, Topology


def laid_out(
    url: StoreUrl, client_name: str, maker: ShardMaker[S], scripts: Mapping[str, Script], jitter: Callable[[], float]
) -> Topology[S]:
    """The topology that the URL names, its connections under `client_name`. `jitter` gives 0…1."""
    dialler = Dialler(url, client_name)
    match url.kind:
        case "one":
            return OneServer(dialler, maker, scripts)
        case "sentinel":
            return SentinelServer(url, dialler, maker, scripts, jitter)
        case "cluster":
            return Cluster(url, dialler, maker, scripts, jitter)
