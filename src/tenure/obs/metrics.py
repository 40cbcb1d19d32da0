"""Every metric of the service, declared in one place. Labels come from closed sets, never from clients.

Counts are plain numbers that one event loop adds to, and become Prometheus samples only when somebody asks:
a request is counted in less than two microseconds. Threads may add too (a lost count would be the worst case).
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

#: upper ends in seconds: a manifest from SQLite at the low end, a layer of gigabytes at the high one
REQUEST_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0)
OPERATION_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0)
METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"})


@dataclass(slots=True)
class Histogram:
    """One series of a histogram: counts by bucket, and the sum."""

    bounds: tuple[float, ...]
    cells: list[int]
    total: float = 0.0

    def add(self, seconds: float) -> None:
        self.cells[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


def histogram(bounds: tuple[float, ...]) -> Histogram:
    return Histogram(bounds, [0] * (len(bounds) + 1))


@dataclass(slots=True)
class RequestSeries:
    """All that is counted for one route, method and class of status."""

    duration: Histogram = field(default_factory=lambda: histogram(REQUEST_BOUNDS))
    received: int = 0
    sent: int = 0


class Metrics(Collector):
    """The numbers of this process and their rendering."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._requests: dict[tuple[str, str, int], RequestSeries] = {}
        self._store: dict[tuple[str, str], Histogram] = {}
        self._database: dict[tuple[str, str], Histogram] = {}
        self._gauges: list[tuple[str, str, Callable[[], float]]] = []
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        self._registry.register(self)

    def request(self, route: str, method: str, status: int, seconds: float, received: int, sent: int) -> None:
        """A request is over. `route` is the label of the route table; an unknown method becomes `other`."""
        key = (route, method, status // 100)
        series = self._requests.get(key)
        if series is None:
            known = method if method in METHODS else "other"
            series = self._requests.setdefault((route, known, status // 100), RequestSeries())
        series.duration.add(seconds)
        series.received += received
        series.sent += sent

    def store(self, operation: str, seconds: float, outcome: str) -> None:
        """The hook of the blob drivers: one call of the store."""
        _series(self._store, (operation, outcome)).add(seconds)

    def database(self, operation: str, seconds: float, outcome: str = "ok") -> None:
        """The hook of the database executors: one statement or one transaction."""
        _series(self._database, (operation, outcome)).add(seconds)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A number that is read when somebody asks for the metrics."""
        self._gauges.append((name, text, read))

    def render(self) -> bytes:
        """The text exposition format, version 0.0.4 (`CONTENT_TYPE_LATEST` of prometheus_client)."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        yield from self._collect_requests()
        yield _operations("tenure_store_operation_seconds", "Calls of the blob store.", self._store)
        yield _operations("tenure_database_operation_seconds", "Statements and transactions.", self._database)
        build = GaugeMetricFamily("tenure_build_info", "The version that runs.", labels=["version"])
        build.add_metric([self._version], 1)
        yield build
        for name, text, read in self._gauges:
            yield GaugeMetricFamily(name, text, read())

    def _collect_requests(self) -> Iterable[Metric]:
        labels = ["route", "method", "status"]
        count = CounterMetricFamily("tenure_http_requests", "Requests answered.", labels=labels)
        seconds = HistogramMetricFamily(
            "tenure_http_request_duration_seconds", "From the first header to the last byte.", labels=labels
        )
        received = CounterMetricFamily("tenure_http_received_bytes", "Bytes of request bodies.", labels=labels)
        sent = CounterMetricFamily("tenure_http_sent_bytes", "Bytes of answers' bodies.", labels=labels)
        for (route, method, status), series in list(self._requests.items()):
            values = [route, method, f"{status}xx"]
            buckets = _buckets(series.duration)
            count.add_metric(values, buckets[-1][1])
            seconds.add_metric(values, buckets, series.duration.total)
            received.add_metric(values, series.received)
            sent.add_metric(values, series.sent)
        return (count, seconds, received, sent)


def _series(known: dict[tuple[str, str], Histogram], key: tuple[str, str]) -> Histogram:
    found = known.get(key)
    return found if found is not None else known.setdefault(key, histogram(OPERATION_BOUNDS))


def _operations(name: str, text: str, known: dict[tuple[str, str], Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=["operation", "outcome"])
    for (operation, outcome), series in list(known.items()):
        family.add_metric([operation, outcome], _buckets(series), series.total)
    return family


def _buckets(series: Histogram) -> list[tuple[str, float]]:
    ends = [*(str(bound) for bound in series.bounds), "+Inf"]
    return list(zip(ends, map(float, accumulate(series.cells)), strict=True))
