"""Told: what the parts of a node are told, made of its settings. Decides nothing else."""

from __future__ import annotations

import os
import time
from ipaddress import ip_network
from socket import gethostname

from actors.core.addresses import Guard
from actors.core.evolution_token import Gate
from actors.evolution import EvolutionRules
from actors.instances import Pacing
from actors.node_ports import NodeRecord
from actors.webhook_call import DeliveryRules
from router.__about__ import __version__
from router.api.tasks import MessageRules
from router.realtime.limits import RealtimeLimits
from router.settings import Settings

USER_AGENT = f"buzon/{__version__}"
EVOLUTION_GUARD = Guard(
    allowed_networks=tuple(
        ip_network(network)
        for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
    ),
    loopback_allowed=True,
)
"""For the one server that the operator has named: everything but link-local and metadata addresses."""


def guard_of(settings: Settings) -> Guard:
    """Which addresses a webhook may have. A server that only this machine can reach may reach this machine."""
    return Guard(
        allowed_networks=tuple(ip_network(network) for network in settings.webhook_allowed_networks),
        loopback_allowed=settings.loopback_only and settings.secret_key is None,
    )


def gate_of(settings: Settings) -> Gate:
    """Who may call Evolution's webhook. Where the API's own tokens are checked nothing is open by accident."""
    return Gate(everywhere=settings.evolution_webhook_token, open_without=settings.secret_key is None)


def realtime_limits(settings: Settings) -> RealtimeLimits:
    """What listeners may do."""
    return RealtimeLimits(
        channels_max=settings.channels_per_connection,
        message_bytes_max=settings.channel_message_bytes_max,
        messages_per_s=settings.channel_commands_per_s,
        connections_max=settings.connections_max,
        connections_per_client_max=settings.connections_per_client,
    )


def delivery_rules(settings: Settings) -> DeliveryRules:
    """What holds where a webhook says nothing itself."""
    return DeliveryRules(
        timeout_s=settings.webhook_timeout_s,
        max_retries=settings.max_retries,
        retry_delay_s=settings.retry_delay_s,
        user_agent=USER_AGENT,
    )


def evolution_rules(settings: Settings) -> EvolutionRules:
    """Where Evolution is."""
    return EvolutionRules(
        url=settings.evolution_url,
        api_key=settings.evolution_api_key or "",
        timeout_s=settings.evolution_timeout_s,
        user_agent=USER_AGENT,
    )


def pacing(settings: Settings) -> Pacing:
    """How fast one instance may send."""
    return Pacing(every_s=settings.evolution_every_s or 0.0, gap_s=settings.evolution_gap_s)


def message_rules(settings: Settings) -> MessageRules:
    """What holds where a message to be sent says nothing itself."""
    return MessageRules(
        instance=settings.evolution_instance,
        on_unknown=settings.evolution_on_unknown,
        max_retries=settings.max_retries,
    )


def identity(settings: Settings) -> NodeRecord:
    """What this process says of itself with each beat."""
    return NodeRecord(
        node=settings.node_id,
        incarnation=os.urandom(8).hex(),
        beat=0,
        group=settings.worker.group if settings.worker is not None else "",
        version=__version__,
        machine=gethostname(),
        pid=os.getpid(),
        started_ms=time.time_ns() // 1_000_000,
    )
