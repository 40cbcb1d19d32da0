"""Lines without secrets, numbers without unbounded labels, both cheap."""

import asyncio
import io
import json
import logging
import time

import pytest
import structlog

from tenure.core.origin import Origin
from tenure.obs.log import Outlet, access_log, configure, request_id, scrub
from tenure.obs.metrics import Metrics
from tenure.obs.settings import LogSettings

ORIGIN = Origin("alice", "192.0.2.7", "01ABC", "docker/28")


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(autouse=True)
def restored():
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    yield
    root.handlers[:], root.level = before
    structlog.reset_defaults()


def test_a_line_is_json_with_the_id_of_its_request(out: io.StringIO) -> None:
    configure(LogSettings(), out)
    token = request_id.set("01XYZ")
    structlog.get_logger().info("upload closed", size=7)
    request_id.reset(token)
    line = json.loads(out.getvalue())
    assert list(line)[:3] == ["time", "level", "event"]
    assert line["request_id"] == "01XYZ" and line["size"] == 7


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_is_no_text_is_shown_and_stops_nothing(form: str) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    configure(LogSettings(format=form), out)
    try:
        raise ValueError("a key \udcff")
    except ValueError:
        structlog.get_logger().exception("odd \udcff", path="/v2/\udcff")
    assert out.buffer.getvalue().count(b"\\udcff") >= 3


def test_the_lines_of_libraries_take_the_same_form(out: io.StringIO) -> None:
    configure(LogSettings(), out)
    logging.getLogger("botocore").warning("retry of %s", "https://s/b?X-Amz-Signature=abc")
    line = json.loads(out.getvalue())
    assert line["logger"] == "botocore" and line["level"] == "warning"
    assert line["event"] == "retry of https://s/b?X-Amz-Signature=***"


def test_an_exception_is_part_of_its_line(out: io.StringIO) -> None:
    configure(LogSettings(), out)
    try:
        raise ValueError("postgresql://u:hush@h/d is away")
    except ValueError:
        structlog.get_logger().exception("failed")
    line = json.loads(out.getvalue())
    assert "ValueError: postgresql://u:***@h/d is away" in line["exception"]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("GET /b?X-Amz-Credential=AK&X-Amz-Signature=ff HTTP", "GET /b?X-Amz-Credential=***&X-Amz-Signature=*** HTTP"),
        ("Authorization: Bearer eyJhbGciOi.J9", "Authorization: Bearer ***"),
        ("postgresql://u:p4ss@db/x", "postgresql://u:***@db/x"),
        ("password=abc", "password=***"),
        ("caf\u00e9 \udcff", "caf\u00e9 \\udcff"),
        ("/v2/a/manifests/latest", "/v2/a/manifests/latest"),
    ],
)
def test_what_opens_doors_is_not_written(text: str, clean: str) -> None:
    assert scrub(text) == clean


def test_an_access_line_names_the_request(out: io.StringIO) -> None:
    write = access_log(LogSettings(), out)
    assert write is not None
    write("GET", "/v2/a/tags/list", 200, 0.00125, received=0, sent=42, origin=ORIGIN)
    line = json.loads(out.getvalue())
    assert line["event"] == "request" and line["duration_ms"] == 1.25 and line["request_id"] == "01ABC"
    assert (line["method"], line["path"], line["status"]) == ("GET", "/v2/a/tags/list", 200)
    assert line["time"].endswith("Z") and len(line["time"]) == 27


class Full(io.StringIO):
    """A file on a disk that is full."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("stream", [Full(), "closed"])
async def test_a_log_that_takes_nothing_ends_nothing_and_is_counted(stream: io.StringIO | str) -> None:
    if isinstance(stream, str):
        stream = io.StringIO()
        stream.close()
    heard: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Outlet, "lost", 0)
        configure(LogSettings(), stream)
        write = access_log(LogSettings(), stream)
        assert write is not None
        for _ in range(2):
            write("GET", "/v2/", 200, 0.001, received=0, sent=2, origin=ORIGIN)
        await asyncio.sleep(0)
        structlog.get_logger().error("something")
        logging.getLogger("library").error("something else")
        assert Outlet.lost >= 4
    assert not heard


def test_access_lines_can_be_switched_off() -> None:
    assert access_log(LogSettings(access=False)) is None
    assert access_log(LogSettings(level="warning")) is None


def test_a_request_costs_little_to_log_and_count(out: io.StringIO) -> None:
    write = access_log(LogSettings(), out)
    metrics = Metrics("1")
    assert write is not None
    rounds = []
    for _ in range(5):
        started = time.process_time()
        for _ in range(2000):
            write("GET", "/v2/a/tags/list", 200, 0.001, received=0, sent=42, origin=ORIGIN)
            metrics.request("tags", "GET", 200, 0.001, 0, 42)
        rounds.append((time.process_time() - started) / 2000)
    assert min(rounds) < 10e-6


def test_numbers_come_out_as_prometheus_text() -> None:
    metrics = Metrics("1.2.3")
    metrics.request("manifest", "GET", 200, 0.0007, 0, 100)
    metrics.request("manifest", "GET", 206, 0.3, 0, 10)
    metrics.request("manifest", "BREW", 405, 0.3, 0, 10)
    metrics.store("put", 0.002, "ok")
    metrics.database("one", 0.0002)
    metrics.gauge("tenure_memory_held_bytes", "Memory lent to uploads and downloads.", lambda: 5)
    text = metrics.render().decode()
    assert 'tenure_http_requests_total{method="GET",route="manifest",status="2xx"} 2.0' in text
    assert 'tenure_http_requests_total{method="other",route="manifest",status="4xx"} 1.0' in text
    assert 'duration_seconds_bucket{le="0.001",method="GET",route="manifest",status="2xx"} 1.0' in text
    assert 'tenure_http_sent_bytes_total{method="GET",route="manifest",status="2xx"} 110.0' in text
    assert 'tenure_store_operation_seconds_count{operation="put",outcome="ok"} 1.0' in text
    assert 'tenure_database_operation_seconds_count{operation="one",outcome="ok"} 1.0' in text
    assert 'tenure_build_info{version="1.2.3"} 1.0' in text
    assert "tenure_memory_held_bytes 5.0" in text
    assert "process_cpu_seconds_total" in text
    for name in ("repository", "digest", "tag", "user"):
        assert f'{name}="' not in text
