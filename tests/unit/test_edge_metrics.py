"""Metrics: the names and numbers that reach a scraper, and bounded series."""

from __future__ import annotations

import re

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

from actors.ports import Meters
from router.edge.meters import Distribution
from router.edge.metrics import Metrics

NAME = re.compile(r"buzon_[a-z_]+")


@pytest.fixture(name="metrics")
def fixture_metrics() -> Metrics:
    """Fresh metrics."""
    return Metrics("1.2.3")


def test_the_actors_meters_are_all_there(metrics: Metrics) -> None:
    """Counting through the port shows on the page."""
    meters: Meters = metrics
    meters.accepted.inc()
    meters.accepted.inc(2)
    meters.batches["size"].inc()
    meters.deliveries["dead"].inc()
    meters.oldest_waiting_seconds.set(1.5)
    meters.batch_messages.observe(7)
    sample = metrics.registry.get_sample_value
    assert sample("buzon_messages_accepted_total") == 3
    assert sample("buzon_batches_total", {"reason": "size"}) == 1
    assert sample("buzon_batches_total", {"reason": "manual"}) == 0
    assert sample("buzon_deliveries_total", {"outcome": "dead"}) == 1
    assert sample("buzon_oldest_waiting_seconds") == 1.5
    assert sample("buzon_batch_messages_bucket", {"le": "5.0"}) == 0
    assert sample("buzon_batch_messages_bucket", {"le": "10.0"}) == 1
    assert sample("buzon_batch_messages_sum") == 7


def test_a_bound_belongs_to_its_bucket() -> None:
    """`le` means less than or equal."""
    distribution = Distribution((1.0, 2.0))
    for amount in (0.5, 1.0, 1.5, 2.0, 2.5):
        distribution.observe(amount)
    assert (distribution.counts, distribution.total) == ([2, 2, 1], 7.5)


def test_both_formats_are_well_formed(metrics: Metrics) -> None:
    """The library's own parsers read every series back."""
    metrics.route("GET", "/x/{id}").answered(200, 0.003)
    plain = metrics.page("text/plain")
    opened = metrics.page("application/openmetrics-text; version=1.0.0")
    assert plain.headers is not None
    assert plain.headers["Content-Type"].startswith("text/plain")
    assert opened.headers is not None
    assert opened.headers["Content-Type"].startswith("application/openmetrics-text")
    assert opened.body.endswith(b"# EOF\n")
    families = {family.name for family in parse_prometheus(plain.body.decode())}
    assert "buzon_http_requests" in families
    read_back = parse_openmetrics(opened.body.decode())  # type: ignore[no-untyped-call]  # the parser has no types
    assert "buzon_http_request_seconds" in {family.name for family in read_back}
    assert 'buzon_build_info{python="' in plain.body.decode()
    assert 'version="1.2.3"' in plain.body.decode()


def test_names_follow_the_conventions(metrics: Metrics) -> None:
    """Our prefix, lower case, a help text, and seconds never as milliseconds."""
    families = [family for family in metrics.registry.collect() if family.name.startswith("buzon")]
    assert len(families) >= 20
    for family in families:
        assert NAME.fullmatch(family.name)
        assert family.documentation
        assert not family.name.endswith(("_ms", "_total", "_milliseconds"))


def test_a_status_class_is_one_series(metrics: Metrics) -> None:
    """However many statuses there are."""
    meters = metrics.route("POST", "/x")
    for status in (200, 201, 204, 400, 404, 503):
        meters.count(status)
    labels = {"method": "POST", "route": "/x"}
    sample = metrics.registry.get_sample_value
    assert sample("buzon_http_requests_total", {**labels, "status": "2xx"}) == 3
    assert sample("buzon_http_requests_total", {**labels, "status": "4xx"}) == 2
    assert sample("buzon_http_requests_total", {**labels, "status": "5xx"}) == 1
    assert sample("buzon_http_requests_total", {**labels, "status": "1xx"}) is None
