"""Stands in for Falco 0.44.1: a program for the whole node, rules in user space."""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path

from .agent import Answer, Ending, log, metric, serve
from .load import Load
from .trouble import Trouble

PORT = 8765
CONFIGURATION = Path("/etc/falco/falco.yaml")
RULES = Path("/etc/falco/rules.d")
PASSES = 60
RULE = re.compile(
    r"^- rule: (?P<name>.+?)\s*$.*?evt\.type *= *(?P<syscall>\w+)", re.MULTILINE | re.DOTALL
)


class Falco:
    """The agent's state, as its web server tells it."""

    def __init__(self) -> None:
        self.trouble = Trouble()
        self.load: Load | None = None
        self.files = sorted(file for file in RULES.glob("*.yaml"))
        self.rules: dict[str, str] = {}
        for file in self.files:
            found = RULE.finditer(file.read_text())
            self.rules |= {each["name"]: each["syscall"] for each in found}
        configuration = CONFIGURATION.read_text() if CONFIGURATION.exists() else ""
        self.has_metrics = "prometheus_metrics_enabled: true" in configuration

    def health(self) -> Answer:
        """Answers before the probe is loaded."""
        if self.trouble.never_ready:
            return 503, "starting\n"
        return 200, '{"status": "ok"}\n'

    def metrics(self) -> Answer:
        """The counters; a rule that has never matched is not among them."""
        if not self.has_metrics:
            return 404, "Not Found\n"
        load, lost = self.load, self.trouble.drops()
        text = metric("falcosecurity_falco_version_info", 1, "gauge", version="0.44.1")
        for file in self.files:
            text += metric(
                "falcosecurity_falco_sha256_rules_files_info",
                1,
                "gauge",
                file_name=file.name,
                sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
            )
        for name, syscall in self.rules.items():
            matches = load.count(syscall) if load else 0
            if matches:
                text += metric(
                    "falcosecurity_falco_rules_matches_total",
                    matches,
                    priority="6",
                    rule_name=name,
                    source="syscall",
                )
        text += metric("falcosecurity_falco_outputs_queue_num_drops_total", 0)
        # An inspector that has not been opened yet has nothing to tell.
        if load:
            text += metric(
                "falcosecurity_scap_engine_name_info",
                1,
                "gauge",
                engine_name="modern_bpf",
                evt_source="syscall",
            )
            text += metric("falcosecurity_scap_n_evts_total", load.count("events"))
            text += metric("falcosecurity_scap_n_drops_total", lost)
            text += metric("falcosecurity_scap_n_drops_buffer_total", lost, drop="open", dir="exit")
        return 200, text


def _say(line: str) -> None:
    log(f"{time.strftime('%a %b %d %H:%M:%S %Y')}: {line}")


def main() -> None:
    """Run until it is told to end."""
    falco = Falco()
    ending = Ending(falco.trouble)
    _say("Falco version: 0.44.1 (x86_64)")
    _say("Falco initialized with configuration files:")
    _say("Loading rules from:")
    for file in falco.files:
        _say(f"   {file} | schema validation: ok")
    _say("The chosen syscall buffer dimension is: 8388608 bytes (8 MBs)")
    _say(f"Starting health webserver with threadiness 2, listening on 0.0.0.0:{PORT}")
    serve(PORT, {"/healthz": falco.health, "/metrics": falco.metrics})
    _say("Loaded event sources: syscall")
    _say("Enabled event sources: syscall")
    _say("Opening 'syscall' source with modern BPF probe.")
    if not (falco.trouble.never_ready or falco.trouble.never_works):
        falco.load = Load(PASSES)
        falco.load.wait_attached()
    while not ending.passed():
        if falco.load and not falco.load.running:
            _say("Error: the BPF program has ended")
            break
    if falco.load:
        falco.load.end()
    _say("SIGTERM received, exiting...")
