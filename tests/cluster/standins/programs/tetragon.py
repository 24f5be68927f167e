"""Stands in for Tetragon 1.7.0: the agent, its command `tetra`, its operator and its exporter."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

from .agent import Answer, Ending, log, metric, serve
from .api import Api, ApiError, Object
from .load import Load
from .trouble import Trouble

METRICS_PORT = 2112
HEALTH_PORT = 6789
GROUP = "cilium.io"
VERSION = "v1alpha1"
BASE_PASSES = 20
POLICY_PASSES = 60
# In the container's own file system: only a `tetra` beside the agent finds it, and it is gone with
# the container.
STATE = Path("/tmp/tetragon.json")
HEADER = "ID NAME STATE FILTERID NAMESPACE SENSORS KERNELMEMORY MODE NPOST NENFORCE NMONITOR"


def _say(level: str, message: str, **fields: object) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000000000Z", time.gmtime())
    told = "".join(f" {name}={value}" for name, value in fields.items())
    quoted = f'"{message}"' if " " in message else message
    log(f"time={now} level={level} msg={quoted}{told}")


class Policies:
    """The policies of the cluster, each with a program of its own once it is loaded."""

    def __init__(self, trouble: Trouble) -> None:
        self._trouble = trouble
        self._api = Api()
        self._loads: dict[str, Load] = {}
        self._rows: dict[str, Object] = {}
        self._next_id = 1
        self._refused = False

    def follow(self) -> None:
        """Load what is new, unload what is gone."""
        try:
            found = {
                each["metadata"]["uid"]: each
                for each in self._api.items(f"/apis/{GROUP}/{VERSION}/tracingpoliciesnamespaced")
            }
        except (OSError, ApiError) as error:
            if not self._refused:
                _say("warn", "listing policies failed", error=error)
            self._refused = True
            return
        self._refused = False
        for gone in self._rows.keys() - found.keys():
            self._drop(gone)
        for new in found.keys() - self._rows.keys():
            self._add(new, found[new])
        for uid, load in self._loads.items():
            self._rows[uid]["npost"] = load.calls()
            if load.attached:
                self._rows[uid]["state"] = "enabled"

    def _add(self, uid: str, policy: Object) -> None:
        name, namespace = policy["metadata"]["name"], policy["metadata"]["namespace"]
        _say("info", "adding namespaced tracing policy", name=name, namespace=namespace)
        row = {"id": self._next_id, "name": name, "namespace": namespace, "npost": 0}
        self._next_id += 1
        self._rows[uid] = row
        calls = [each["call"] for each in policy["spec"].get("kprobes", [])]
        if self._trouble.never_works or "nonsense" in calls:
            row["state"] = "load_error"
            _say("warn", "adding tracing policy failed", error='"kprobe call not found"')
            return
        row["state"] = "loading"
        self._loads[uid] = Load(POLICY_PASSES, of_workload_only=True)

    def _drop(self, uid: str) -> None:
        _say("info", "deleting tracing policy", name=self._rows.pop(uid)["name"])
        if uid in self._loads:
            self._loads.pop(uid).end()

    def rows(self) -> list[Object]:
        """What `tetra` lists."""
        return sorted(self._rows.values(), key=lambda row: int(row["id"]))

    def end(self) -> None:
        """Unload all."""
        for load in self._loads.values():
            load.end()


def agent() -> None:
    """Run until it is told to end."""
    trouble = Trouble()
    ending = Ending(trouble)
    STATE.unlink(missing_ok=True)
    _say("info", "Starting tetragon", version="v1.7.0")
    if trouble.never_ready:
        while not ending.passed():
            pass
        return
    base = Load(BASE_PASSES)
    base.wait_attached()
    policies = Policies(trouble)

    def metrics() -> Answer:
        lost, rows = trouble.drops(), policies.rows()
        text = metric("tetragon_bpf_missed_events_total", lost, msg_op="13", error="ENOSPC")
        for name in (
            "observer_ringbuf_queue_events_lost_total",
            "observer_ringbuf_events_lost_total",
            "notify_overflowed_events_total",
        ):
            text += metric(f"tetragon_{name}", 0)
        for name in ("missed_prog_probes_total", "missed_link_probes_total"):
            text += metric(f"tetragon_{name}", 0, attach="acct_process", policy="__base__")
        text += "# TYPE tetragon_tracingpolicy_loaded gauge\n"
        for state in ("disabled", "enabled", "error", "load_error"):
            loaded = sum(row["state"] == state for row in rows)
            text += f'tetragon_tracingpolicy_loaded{{state="{state}"}} {loaded}\n'
        return 200, text

    serve(METRICS_PORT, {"/metrics": metrics})
    # The real one speaks gRPC here; the kubelet of a test cluster may be too old to ask for that.
    serve(HEALTH_PORT, {"/healthz": lambda: (200, "ok\n")})
    _say("info", "Listening for events...")
    while not ending.passed():
        policies.follow()
        # Whole or not at all: tetra may read it at any moment.
        written = STATE.with_suffix(".new")
        written.write_text(json.dumps(policies.rows()))
        written.replace(STATE)
    policies.end()
    base.end()


def tetra() -> None:
    """`tetra status` and `tetra tracingpolicy list`, asking the agent beside it."""
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    if not STATE.exists():
        sys.exit("Failed to connect to server: context deadline exceeded")
    if words == ["status"]:
        log("Health Status: running")
    elif words[:1] in (["tracingpolicy"], ["tp"]) and words[1:] == ["list"]:
        _list(json.loads(STATE.read_text()))
    else:
        sys.exit(f'Error: unknown command "{" ".join(words)}" for "tetra"')


def _list(rows: list[Object]) -> None:
    """Print the table, its columns padded as the real one pads them."""
    table = [HEADER.split()]
    for row in rows:
        works = row["state"] == "enabled"
        table.append(
            [
                str(row["id"]),
                row["name"],
                row["state"],
                str(row["id"]),
                row["namespace"],
                "generic_kprobe" if works else "",
                "4.46 MB" if works else "0 B",
                "monitor",
                str(row["npost"]),
                "0",
                "0",
            ]
        )
    widths = [max(len(row[column]) for row in table) + 3 for column in range(len(table[0]))]
    for cells in table:
        padded = [f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)]
        log("".join(padded[:-1]) + cells[-1])


def _definition(kind: str, plural: str, short: str, scope: str) -> Object:
    """A resource definition with the real names and a schema that takes everything."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short],
            },
            "scope": scope,
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


DEFINITIONS = (
    _definition("TracingPolicy", "tracingpolicies", "tgtp", "Cluster"),
    _definition("TracingPolicyNamespaced", "tracingpoliciesnamespaced", "tgtpn", "Namespaced"),
    _definition("PodInfo", "podinfo", "tgpi", "Namespaced"),
)


def operator() -> None:
    """Create the definitions, which stay, then idle."""
    trouble = Trouble()
    ending = Ending(trouble)
    api = Api()
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for definition in DEFINITIONS:
        while not ending.passed(0):
            try:
                api.request("POST", definitions, definition)
            except ApiError as error:
                if error.code != 409:
                    raise
            except OSError as error:
                _say("warn", "the API server does not answer", error=error)
                ending.passed(1)
                continue
            break
    _say("info", "Initialization complete")
    ready = 503 if trouble.never_ready else 200
    serve(8081, {"/healthz": lambda: (200, "ok\n"), "/readyz": lambda: (ready, "\n")})
    while not ending.passed():
        pass


def exporter() -> None:
    """`hubble-export-stdout`: the agent exports nothing, so there is nothing to print."""
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
