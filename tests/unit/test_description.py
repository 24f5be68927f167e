"""Descriptions of agents: the shipped ones, a user's own, and what is wrong with one, in a line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from pytest_syslat.agents.description import (
    Description,
    DescriptionError,
    described_agents,
    filled,
    read_description,
)

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ["falco", "kloudknox", "tetragon"]
CLUSTER = '[kubernetes]\ndaemonset = "mine/mine"\n'
HOST = '[host]\ncommand = "mine --quiet"\n'
METRICS = "[metrics]\nport = 9100\n"


def shipped(name: str) -> Description:
    return read_description(ROOT / "agents" / f"{name}.toml")


def described(directory: Path, text: str) -> Description:
    path = directory / "mine.toml"
    path.write_text(text)
    return read_description(path)


# --- Shipped ones --------------------------------------------------------------------------------


def test_all_shipped_ones_are_found(tmp_path: Path) -> None:
    assert sorted(described_agents(tmp_path)) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_files_that_a_shipped_one_names_are_shipped(name: str) -> None:
    found = shipped(name)
    assert found.name == name
    assert found.kubernetes is not None
    named = [found.kubernetes.policy, found.host.policy if found.host else ""]
    named += [found.kubernetes.chart.values] if found.kubernetes.chart else []
    assert [file for file in named if file]
    assert [file for file in named if file and not (ROOT / file).is_file()] == []


@pytest.mark.parametrize("name", SHIPPED)
def test_whatever_is_asked_of_a_shipped_one_stands_in_the_documentation(name: str) -> None:
    """Names of metrics as they are, and lines of logs as far as they are no patterns."""
    told = (ROOT / "docs/agents.md").read_text()
    found = shipped(name)
    selectors = [found.ready.rising, *found.seen.metrics, *found.drops.metrics]
    wanted = [each.partition("{")[0] for each in selectors if each]
    wanted += [line for line in found.ready.log if not re.search(r"[\\(|]", line)]
    assert wanted
    assert [each for each in wanted if each not in told] == []


@pytest.mark.parametrize(("name", "port"), [("falco", 8765), ("tetragon", 2112)])
def test_ports_of_metrics(name: str, port: int) -> None:
    metrics = shipped(name).metrics
    assert metrics is not None
    assert (metrics.port, metrics.path) == (port, "/metrics")


def test_each_rule_of_falco_must_be_seen() -> None:
    for file in ("bench.yaml", "host.yaml"):
        rules = yaml.safe_load((ROOT / "policies/falco" / file).read_text())
        names = [each["rule"] for each in rules if "rule" in each]
        assert shipped("falco").seen.metrics == tuple(
            f'falcosecurity_falco_rules_matches_total{{rule_name="{name}"}}' for name in names
        )


def test_where_falco_reads_its_rules() -> None:
    values = yaml.safe_load((ROOT / "policies/falco/values.yaml").read_text())
    assert values["falco"]["rules_files"] == ["/etc/falco/rules.d"]
    assert shipped("falco").policy_active.log == (r"{file} \| schema validation: ok",)


@pytest.mark.parametrize("name", ["falco", "tetragon"])
def test_charts_have_the_versions_that_the_policies_were_checked_against(name: str) -> None:
    cluster = shipped(name).kubernetes
    assert cluster is not None
    assert cluster.chart is not None
    checked = (ROOT / "policies" / name / "values.yaml").read_text()
    assert re.search(rf"Checked against .*{re.escape(cluster.chart.version)}\b", checked)


def test_manifests_of_kloudknox_are_pinned() -> None:
    cluster = shipped("kloudknox").kubernetes
    assert cluster is not None
    manifests = cluster.manifests
    assert manifests is not None
    assert manifests.source.endswith("/v0.1.0/deployments")
    # 03 is for nodes without BPF LSM.
    assert [name[:3] for name in manifests.files] == ["00_", "01_", "02_", "04_"]
    assert all(re.fullmatch("[0-9a-f]{64}", each) for each in manifests.sha256)
    assert len(set(manifests.sha256)) == len(manifests.files)
    assert [image.partition(":latest=")[2].endswith(":v0.1.0") for image in manifests.images] == [
        True,
        True,
    ]


# --- A user's own --------------------------------------------------------------------------------


def test_new_agent_needs_nothing_but_a_file(tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents/mine.toml").write_text(HOST)
    found = described_agents(tmp_path)
    assert sorted(found) == ["falco", "kloudknox", "mine", "tetragon"]
    mine = read_description(found["mine"])
    assert mine.name == "mine"
    assert mine.kubernetes is None
    assert mine.host is not None
    assert mine.host.command == "mine --quiet"
    assert mine.metrics is None
    assert mine.ready.log == ()


def test_users_file_wins_over_a_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    mine = tmp_path / "agents/falco.toml"
    mine.write_text(HOST)
    assert described_agents(tmp_path)["falco"] == mine
    assert described_agents(tmp_path)["tetragon"] == ROOT / "agents/tetragon.toml"


def test_all_that_can_be_said(tmp_path: Path) -> None:
    found = described(
        tmp_path,
        """
        [kubernetes]
        daemonset = "n-1/d.2"
        container = "c"
        policy = "p.yaml"
        policy_config_map = "n-1/rules"
        node_paths = ["/var/a", "/var/b"]
        [kubernetes.manifests]
        source = "deploy"
        files = ["a.yaml", "b.yaml"]
        images = ["a:latest=a:1"]
        [host]
        service = "mine.service"
        [ready]
        log = "one pattern may stand alone"
        port = 80
        [drops]
        log = 'lost ([0-9]+)'
        [version]
        command = ["mine", "--version"]
        """,
    )
    assert found.kubernetes is not None
    assert found.kubernetes.manifests is not None
    assert found.kubernetes.daemonset == "n-1/d.2"
    assert found.kubernetes.node_paths == ("/var/a", "/var/b")
    assert found.kubernetes.manifests.files == ("a.yaml", "b.yaml")
    assert found.ready.log == ("one pattern may stand alone",)
    assert found.ready.port == 80
    assert found.version.command == ("mine", "--version")


def test_braces_of_regular_expressions_stay() -> None:
    assert filled("{name} in {file}: [0-9]{2}", name="n", file="f") == "n in f: [0-9]{2}"


# --- What is wrong -------------------------------------------------------------------------------

CHART = """[kubernetes.chart]
release = "r"
name = "n"
repository = "https://charts"
version = "1"
"""
MANIFESTS = '[kubernetes.manifests]\nsource = "deploy"\nfiles = ["a.yaml", "b.yaml"]\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[host\n", " cannot be read: Expected ']' at the end of a table declaration (at line 1"),
        (
            HOST + '[redy]\nlog = "x"\n',
            (
                ": no section [redy]: allowed is kubernetes, host, ready, policy_active, seen, "
                "drops, metrics, version"
            ),
        ),
        (
            HOST + "[ready]\nlogs = []\n",
            ", [ready]: no key 'logs': allowed is log, command, rising, port, file",
        ),
        ("host = 1\n", ", [host]: a table is needed"),
        ('[kubernetes]\npolicy = "p"\n', ", [kubernetes]: the key 'daemonset' is missing"),
        ("[host]\ncommand = 1\n", ", [host]: command: a text is needed"),
        (HOST + '[ready]\nport = "80"\n', ", [ready]: port: a whole number is needed"),
        (HOST + "[ready]\nport = true\n", ", [ready]: port: a whole number is needed"),
        (HOST + "[ready]\nlog = [1]\n", ", [ready]: log: a list of texts is needed"),
        (HOST + "[ready]\nlog = 1\n", ", [ready]: log: a list of texts is needed"),
        (
            HOST + '[ready]\nlog = ["fine", "("]\n',
            ", [ready]: log: '(' is no regular expression: missing ), unterminated subpattern",
        ),
        (
            HOST + '[policy_active]\ncommand = ["x"]\nshows = "["\n',
            ", [policy_active]: shows: '[' is no regular expression: unterminated character set",
        ),
        (
            HOST + '[drops]\nlog = "lost [0-9]+"\n',
            (
                ", [drops]: log: 'lost [0-9]+' needs one group, such as ([0-9]+), that finds the "
                "number"
            ),
        ),
        (
            HOST + '[seen]\ncommand = ["x"]\ncount = "(a)(b)"\n',
            ", [seen]: count: '(a)(b)' needs one group, such as ([0-9]+), that finds the number",
        ),
        (
            HOST + METRICS + "[drops]\nmetrics = ['drops{a=b}']\n",
            (
                ", [drops]: metrics: 'drops{a=b}' is no metric: such as drops_total or "
                'drops_total{reason="full"} is needed'
            ),
        ),
        (
            HOST + METRICS + "[ready]\nrising = 'two words'\n",
            (
                ", [ready]: rising: 'two words' is no metric: such as drops_total or "
                'drops_total{reason="full"} is needed'
            ),
        ),
        (METRICS, ": [kubernetes] or [host] is needed"),
        ("", ": [kubernetes] or [host] is needed"),
        (
            '[kubernetes]\ndaemonset = "mine"\n',
            ", [kubernetes]: daemonset: NAMESPACE/NAME is needed",
        ),
        (
            CLUSTER + 'policy_config_map = "rules"\n',
            ", [kubernetes]: policy_config_map: NAMESPACE/NAME is needed",
        ),
        (
            CLUSTER + 'policy_config_map = "mine/rules"\n',
            ", [kubernetes]: policy_config_map needs a policy",
        ),
        (
            CLUSTER + CHART + MANIFESTS,
            ", [kubernetes]: either a chart or manifests, not both",
        ),
        (
            CLUSTER + '[kubernetes.chart]\nrelease = "r"\n',
            ", [kubernetes.chart]: the key 'name' is missing",
        ),
        (
            CLUSTER + CHART + "wait = true\n",
            (
                ", [kubernetes.chart]: no key 'wait': allowed is release, name, repository, "
                "version, values"
            ),
        ),
        (
            CLUSTER + MANIFESTS + 'sha256 = ["0"]\n',
            ", [kubernetes.manifests]: sha256: 1 for 2 files",
        ),
        (
            CLUSTER + MANIFESTS.replace("deploy", "https://there"),
            ", [kubernetes.manifests]: sha256: files from a URL need their checksums",
        ),
        (
            CLUSTER + MANIFESTS + 'images = ["a:1"]\n',
            ", [kubernetes.manifests]: images: 'a:1': FROM=TO is needed",
        ),
        (HOST + 'service = "s"\n', ", [host]: either a command or a service is needed"),
        ('[host]\npolicy = "p"\n', ", [host]: either a command or a service is needed"),
        ('[host]\ncommand = " "\n', ", [host]: either a command or a service is needed"),
        ('[host]\ncommand = "it\'s"\n', ", [host]: command: No closing quotation"),
        (
            HOST + '[ready]\nrising = "n_total"\n',
            ": [metrics] is needed: other sections name metrics",
        ),
        (
            HOST + '[seen]\nmetrics = ["n_total"]\n',
            ": [metrics] is needed: other sections name metrics",
        ),
        (
            HOST + '[drops]\nmetrics = ["n_total"]\n',
            ": [metrics] is needed: other sections name metrics",
        ),
        (HOST + '[metrics]\npath = "/x"\n', ", [metrics]: the key 'port' is missing"),
        (
            HOST + '[policy_active]\ncommand = ["x"]\n',
            ", [policy_active]: a command and a pattern for what it prints belong together",
        ),
        (
            HOST + '[seen]\ncount = "([0-9]+)"\n',
            ", [seen]: a command and a pattern for what it prints belong together",
        ),
    ],
)
def test_wrong_ones(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(DescriptionError) as caught:
        described(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'mine.toml'}{told}")
    assert "\n" not in message


def test_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(DescriptionError, match=r"mine\.toml cannot be read: 'utf-8' codec"):
        read_description(tmp_path / "mine.toml")


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DescriptionError, match=r"mine\.toml cannot be read: .*No such file"):
        read_description(tmp_path / "mine.toml")
