"""What agents tell about themselves: their metrics, logs and tools, in the formats they have."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pytest_syslat.agents.description import (
    Description,
    Drops,
    Metrics,
    PolicyActive,
    Ready,
    Seen,
    Version,
    read_description,
)
from pytest_syslat.agents.evidence import Evidence, metric_sum
from pytest_syslat.testbeds.protocol import Completed, TestbedError

from .servers import Quiet, served
from .support import FakeCarrier, Host

ROOT = Path(__file__).resolve().parents[2]

# As Falco 0.44 writes it: HELP and TYPE before each sample, and no sample for a rule without match.
FALCO = """\
# HELP falcosecurity_falco_version_info https://falco.org/docs/metrics/
# TYPE falcosecurity_falco_version_info gauge
falcosecurity_falco_version_info{version="0.44.1"} 1
# HELP falcosecurity_falco_rules_matches_total https://falco.org/docs/metrics/
# TYPE falcosecurity_falco_rules_matches_total counter
falcosecurity_falco_rules_matches_total{priority="6",rule_name="Bench execve",source="syscall"} 20
# HELP falcosecurity_falco_rules_matches_total https://falco.org/docs/metrics/
# TYPE falcosecurity_falco_rules_matches_total counter
falcosecurity_falco_rules_matches_total{priority="6",rule_name="Bench openat",source="syscall",\
tag_T1555="true"} 32
# HELP falcosecurity_falco_outputs_queue_num_drops_total https://falco.org/docs/metrics/
# TYPE falcosecurity_falco_outputs_queue_num_drops_total counter
falcosecurity_falco_outputs_queue_num_drops_total 3
# HELP falcosecurity_scap_n_evts_total https://falco.org/docs/metrics/
# TYPE falcosecurity_scap_n_evts_total counter
falcosecurity_scap_n_evts_total 123456
# HELP falcosecurity_scap_n_drops_buffer_total https://falco.org/docs/metrics/
# TYPE falcosecurity_scap_n_drops_buffer_total counter
falcosecurity_scap_n_drops_buffer_total{drop="open",dir="exit"} 5
# HELP falcosecurity_scap_n_drops_total https://falco.org/docs/metrics/
# TYPE falcosecurity_scap_n_drops_total counter
falcosecurity_scap_n_drops_total 7
"""
TETRAGON = """\
# HELP tetragon_bpf_missed_events_total Number of Tetragon perf events that are failed to be sent.
# TYPE tetragon_bpf_missed_events_total counter
tetragon_bpf_missed_events_total{error="EAGAIN",msg_op="13"} 4
tetragon_bpf_missed_events_total{error="ENOSPC",msg_op="13"} 1.0e+01
tetragon_bpf_missed_events_total{error="ENOSPC",msg_op="5"} 0
# HELP tetragon_missed_prog_probes_total The total number of Tetragon probe missed by program.
# TYPE tetragon_missed_prog_probes_total counter
tetragon_missed_prog_probes_total{attach="acct_process",policy="__base__"} 2
# HELP tetragon_observer_ringbuf_events_lost_total Number of perf events lost.
# TYPE tetragon_observer_ringbuf_events_lost_total counter
tetragon_observer_ringbuf_events_lost_total 1000
# HELP tetragon_observer_ringbuf_queue_events_lost_total Number of perf events lost in the queue.
# TYPE tetragon_observer_ringbuf_queue_events_lost_total counter
tetragon_observer_ringbuf_queue_events_lost_total 1
"""
# As cmd/tetra/common/utils.go prints them: with a tabwriter, three spaces between columns.
POLICIES_17 = """\
ID   NAME          STATE      FILTERID   NAMESPACE       SENSORS                         \
KERNELMEMORY   MODE      NPOST   NENFORCE   NMONITOR
1    bench         enabled    1          bench-syscall   generic_kprobe                  \
1.88 MB        enforce   33      0          0
2    bench-other   enabled    0          (global)        generic_kprobe,generic_uprobe   \
0 B            monitor   77      1          2
3    off           disabled   2          elsewhere                                       \
0 B            enforce   5       0          0
"""
POLICIES_18 = """\
ID   NAME    DOMAIN   STATE               FILTERID   NAMESPACE       SENSORS          \
KERNELMEMORY   MODE      NPOST   NENFORCE   NMONITOR
1    bench   k8s      enabled             1          bench-syscall   generic_kprobe   \
1.88 MB        enforce   41      0          0
2    part    k8s      partially_enabled   0          (global)        generic_kprobe   \
1.88 MB        enforce   6       0          0
"""


@pytest.mark.parametrize(
    ("text", "selector", "value"),
    [
        (FALCO, "falcosecurity_scap_n_evts_total", 123456),
        (FALCO, "falcosecurity_falco_rules_matches_total", 52),
        (FALCO, 'falcosecurity_falco_rules_matches_total{rule_name="Bench openat"}', 32),
        (FALCO, 'falcosecurity_falco_rules_matches_total{rule_name="Bench connect"}', 0),
        (
            FALCO,
            'falcosecurity_falco_rules_matches_total{rule_name="Bench execve",priority="6"}',
            20,
        ),
        (
            FALCO,
            'falcosecurity_falco_rules_matches_total{rule_name="Bench execve",priority="5"}',
            0,
        ),
        (FALCO, "falcosecurity_scap_n_drops", 0),
        (TETRAGON, "tetragon_bpf_missed_events_total", 14),
        (TETRAGON, 'tetragon_bpf_missed_events_total{msg_op="13"}', 14),
        (TETRAGON, 'tetragon_bpf_missed_events_total{error="ENOSPC"}', 10),
        (TETRAGON, "tetragon_missed_link_probes_total", 0),
        # Not every program keeps to the rule that the names of counters end with `_total`.
        ("# TYPE drops counter\ndrops 4\n", "drops", 4),
        ("# TYPE drops counter\ndrops 4\n", "drops_total", 0),
        ("", "drops", 0),
    ],
)
def test_metric_sum(text: str, selector: str, value: float) -> None:
    assert metric_sum(text, selector) == value


@pytest.mark.parametrize("text", ["404 page not found\n", "<html>\n", "drops{ 1\n", "drops four\n"])
def test_metrics_that_are_none(text: str) -> None:
    with pytest.raises(TestbedError, match=r"^its metrics cannot be read: [^\n]+$"):
        metric_sum(text, "drops")


# --- A server ------------------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.text = ""


class Handler(Quiet, BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        found = self.path == "/metrics"
        self.send_response(200 if found else 404)
        self.end_headers()
        if found:
            self.wfile.write(server.text.encode())


@pytest.fixture
def server() -> Iterator[Server]:
    with served(Server()) as server:
        yield server


@pytest.fixture
def carrier() -> FakeCarrier:
    return FakeCarrier()


def evidence(tmp_path: Path, carrier: FakeCarrier, description: Description) -> Evidence:
    return Evidence(Host(tmp_path).as_testbed(), carrier, description)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_shipped_drops_of_metrics(tmp_path: Path, carrier: FakeCarrier, server: Server) -> None:
    # 7 of the kernel's buffer and 3 of the queue; parts of a sum do not count once more.
    # 14 of the buffer, 1 of the queue, 2 missed probes; not those of the old perf buffer.
    for name, text, drops in (("falco", FALCO, 10), ("tetragon", TETRAGON, 17)):
        server.text = text
        shipped = read_description(ROOT / f"agents/{name}.toml")
        asked = Description(name, drops=shipped.drops, metrics=Metrics(server.server_port))
        assert evidence(tmp_path, carrier, asked).drops() == drops


def test_what_falco_has_seen(tmp_path: Path, carrier: FakeCarrier, server: Server) -> None:
    server.text = FALCO
    shipped = read_description(ROOT / "agents/falco.toml")
    asked = Description("falco", seen=shipped.seen, metrics=Metrics(server.server_port))
    assert list(evidence(tmp_path, carrier, asked).seen("bench.yaml").values()) == [20, 32, 0]


def test_metrics_that_cannot_be_fetched(
    tmp_path: Path, carrier: FakeCarrier, server: Server
) -> None:
    for metrics, reason in (
        (Metrics(closed_port()), "Connection refused"),
        (Metrics(server.server_port, "/other"), "HTTP Error 404"),
    ):
        asked = evidence(tmp_path, carrier, Description("x", metrics=metrics))
        url = f"http://127.0.0.1:{metrics.port}{metrics.path}"
        with pytest.raises(TestbedError, match=rf"^{url} cannot be read: .*{reason}"):
            asked.metric("drops")


# --- Signs of readiness --------------------------------------------------------------------------


def test_signs_of_readiness(tmp_path: Path, carrier: FakeCarrier) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        file = tmp_path / "there"
        asked = evidence(
            tmp_path,
            carrier,
            Description(
                "x",
                ready=Ready(log=("first", "sec.nd"), command=("ask",), port=port, file=str(file)),
            ),
        )
        carrier.answers[("ask",)] = Completed(("ask",), 1, "", "trying\nnot yet\n")
        assert asked.not_ready() == "its log lacks 'first'"
        carrier.printed = "the first line\n"
        assert asked.not_ready() == "its log lacks 'sec.nd'"
        carrier.printed += "the second line\n"
        assert asked.not_ready() == "'ask' says: not yet"
        carrier.answers[("ask",)] = Completed(("ask",), 0, "", "")
        assert asked.not_ready() == f"{file} is not there"
        file.touch()
        assert asked.not_ready() is None
    assert asked.not_ready() == f"nothing answers on port {port}"


def test_nothing_is_asked_of_an_agent_without_signs(tmp_path: Path, carrier: FakeCarrier) -> None:
    asked = evidence(tmp_path, carrier, Description("x"))
    assert asked.not_ready() is None
    assert asked.policy_not_active(Path("p.yaml"), "p") is None
    assert asked.seen("p") == {}
    assert asked.drops() is None
    assert asked.version() is None


def test_policy_by_status_and_log(tmp_path: Path, carrier: FakeCarrier) -> None:
    active = PolicyActive(status="Active", log=(r"took {name} of {file}",))
    asked = evidence(tmp_path, carrier, Description("x", policy_active=active))
    file = Path("/where/my+rules.yaml")
    assert asked.policy_not_active(file, "p.1") == "the status of policy p.1 is not told"
    carrier.status = "Invalid: no"
    assert asked.policy_not_active(file, "p.1") == "the status of policy p.1 is Invalid: no"
    carrier.status = "Active"
    # Names are no regular expressions.
    carrier.printed = "took pX1 of my+rules.yaml\ntook p.1 of myyrules.yaml\n"
    assert asked.policy_not_active(file, "p.1") is not None
    carrier.printed += "took p.1 of my+rules.yaml\n"
    assert asked.policy_not_active(file, "p.1") is None


def test_policy_of_falco(tmp_path: Path, carrier: FakeCarrier) -> None:
    active = read_description(ROOT / "agents/falco.toml").policy_active
    asked = evidence(tmp_path, carrier, Description("falco", policy_active=active))
    line = "Sun Nov 22 12:00:00 2026:    /etc/falco/rules.d/{} | schema validation: {}\n"
    for printed in (line.format("other.yaml", "ok"), line.format("bench.yaml", "failed")):
        carrier.printed = printed
        assert asked.policy_not_active(Path("bench.yaml"), "bench.yaml") is not None
    carrier.printed = line.format("bench.yaml", "ok")
    assert asked.policy_not_active(Path("bench.yaml"), "bench.yaml") is None


TETRA_LIST = ("tetra", "tracingpolicy", "list")


@pytest.mark.parametrize(
    ("table", "name", "active", "seen"),
    [
        (POLICIES_17, "bench", True, 33),
        (POLICIES_17, "bench-other", True, 77),
        (POLICIES_17, "off", False, 0),
        (POLICIES_17, "ben", False, 0),
        (POLICIES_17, "absent", False, 0),
        (POLICIES_18, "bench", True, 41),
        (POLICIES_18, "part", False, 0),
        ("", "bench", False, 0),
    ],
)
def test_policies_of_tetragon(
    tmp_path: Path, carrier: FakeCarrier, table: str, name: str, active: bool, seen: int
) -> None:
    carrier.answers[TETRA_LIST] = Completed(TETRA_LIST, 0, table, "")
    asked = evidence(tmp_path, carrier, read_description(ROOT / "agents/tetragon.toml"))
    assert asked.seen(name) == {"tetra tracingpolicy list": seen}
    problem = asked.policy_not_active(Path("bench.yaml"), name)
    told = f"'tetra tracingpolicy list' does not show policy {name} as active"
    assert problem == (None if active else told)


def test_policy_of_one_name_in_two_namespaces(tmp_path: Path, carrier: FakeCarrier) -> None:
    rows = "".join(
        f"{number}   bench   enabled   0   n{number}   kprobes   1 B   enforce   {posted}   0   0\n"
        for number, posted in ((1, 5), (2, 7))
    )
    carrier.answers[TETRA_LIST] = Completed(TETRA_LIST, 0, rows, "")
    asked = evidence(tmp_path, carrier, read_description(ROOT / "agents/tetragon.toml"))
    assert asked.seen("bench") == {"tetra tracingpolicy list": 12}


# --- KloudKnox: what it writes with zap's console encoder ----------------------------------------

KLOUDKNOX = [
    "Started System Monitor",
    "Started BPF-LSM Enforcer",
    "Started NetworkEnforcer",
    "Started to watch Kubernetes events",
]


def kloudknox_line(text: str, level: str = "\x1b[34mINFO\x1b[0m") -> str:
    return f"2026-11-22 12:00:00.123456\t{level}\t{text}\n"


def test_readiness_of_kloudknox(tmp_path: Path, carrier: FakeCarrier) -> None:
    asked = evidence(tmp_path, carrier, read_description(ROOT / "agents/kloudknox.toml"))
    for missing in KLOUDKNOX:
        carrier.printed = "".join(kloudknox_line(each) for each in KLOUDKNOX if each != missing)
        assert asked.not_ready() == f"its log lacks {missing!r}"
    carrier.printed = "".join(map(kloudknox_line, KLOUDKNOX))
    assert asked.not_ready() is None


@pytest.mark.parametrize(
    ("line", "active"),
    [
        ("Updated a KloudKnoxPolicy (bench) to pod bench-syscall/workload", True),
        ("Applied 1 security policy to pod bench-syscall/workload", True),
        ("Updated a KloudKnoxPolicy (bench-syscall/bench)", False),
        ("Updated a KloudKnoxPolicy (bench2) to pod bench-syscall/workload", False),
        ("Updated a KloudKnoxPolicy (bench) to pod default/nginx", False),
    ],
)
def test_policy_of_kloudknox(tmp_path: Path, carrier: FakeCarrier, line: str, active: bool) -> None:
    asked = evidence(tmp_path, carrier, read_description(ROOT / "agents/kloudknox.toml"))
    carrier.status = "Active"
    carrier.printed = kloudknox_line(line)
    assert (asked.policy_not_active(Path("bench.yaml"), "bench") is None) is active


def test_drops_of_kloudknox(tmp_path: Path, carrier: FakeCarrier) -> None:
    asked = evidence(tmp_path, carrier, read_description(ROOT / "agents/kloudknox.toml"))
    assert asked.drops() == 0
    carrier.printed = "".join(
        kloudknox_line(each, "\x1b[33mWARN\x1b[0m")
        for each in (
            "BPF-LSM alert channel full: dropped 5 alerts",
            "Network event channel full: dropped 30 events",
            "Ring buffer full: dropped 200 critical events (consider increasing buffer size)",
            "Ring buffer full: dropped 1000 non-critical events",
            "BPF-LSM alert channel full: dropped 1 alerts",
            "Started to watch Kubernetes events",
        )
    )
    assert asked.drops() == 1236


# --- Version -------------------------------------------------------------------------------------


def test_version(tmp_path: Path, carrier: FakeCarrier) -> None:
    ask = ("mine", "-v")
    asked = evidence(tmp_path, carrier, Description("x", version=Version(ask)))
    carrier.answers[ask] = Completed(ask, 0, "\n mine 1.2 \nmore\n", "a warning\n")
    assert asked.version() == "mine 1.2"
    carrier.answers[ask] = Completed(ask, 0, "", "mine 1.3\n")
    assert asked.version() == "mine 1.3"
    carrier.answers[ask] = Completed(ask, 1, "usage\n", "")
    assert asked.version() is None
    carrier.answers[ask] = Completed(ask, 0, "", "")
    assert asked.version() is None


def test_numbers_by_a_tool_add_up(tmp_path: Path, carrier: FakeCarrier) -> None:
    seen = Seen(command=("count",), count=r"{name}: ([0-9.]+)")
    asked = evidence(tmp_path, carrier, Description("x", seen=seen, drops=Drops(log="lost (\\d+)")))
    carrier.answers[("count",)] = lambda: "p: 1.5\nq: 9\np: 2\n"
    assert asked.seen("p") == {"count": 3.5}
