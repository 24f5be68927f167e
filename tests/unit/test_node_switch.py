"""Keeping a DaemonSet off one node, and putting its template back exactly."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from pytest_syslat.testbeds.node_switch import (
    affinity_patch,
    switch_label,
    with_switch,
    without_switch,
)

LABEL = "pytest-syslat/off.falco.falco"
OFF = {"key": LABEL, "operator": "DoesNotExist"}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
LINUX = {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}
GPU = {"key": "gpu", "operator": "Exists"}
BY_NAME = [{"key": "metadata.name", "operator": "NotIn", "values": ["other"]}]

AFFINITIES: dict[str, dict[str, Any] | None] = {
    "none": None,
    "pods only": {"podAntiAffinity": {"preferred": ["x"]}},
    "preferred only": {"nodeAffinity": {"preferredDuring": ["x"]}},
    "one term": {
        "nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [LINUX]}]}}
    },
    "two terms": {
        "nodeAffinity": {
            REQUIRED: {
                "nodeSelectorTerms": [
                    {"matchExpressions": [LINUX]},
                    {"matchExpressions": [GPU], "matchFields": BY_NAME},
                ]
            }
        }
    },
    "fields only": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchFields": BY_NAME}]}}},
}


def terms(affinity: dict[str, Any] | None) -> list[dict[str, Any]]:
    assert affinity is not None
    found: list[dict[str, Any]] = affinity["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    return found


@pytest.mark.parametrize("name", AFFINITIES)
def test_each_alternative_keeps_off(name: str) -> None:
    before = AFFINITIES[name]
    kept = copy.deepcopy(before)
    after = with_switch(before, LABEL)
    assert all(OFF in term["matchExpressions"] for term in terms(after))
    assert before == kept


@pytest.mark.parametrize("name", AFFINITIES)
def test_taken_back_it_is_as_before(name: str) -> None:
    before = AFFINITIES[name]
    assert without_switch(with_switch(before, LABEL), LABEL) == before


@pytest.mark.parametrize("name", AFFINITIES)
def test_twice_is_once(name: str) -> None:
    once = with_switch(AFFINITIES[name], LABEL)
    assert with_switch(once, LABEL) == once


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386, as the API server applies a merge patch."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def template(affinity: dict[str, Any] | None) -> dict[str, Any]:
    spec: dict[str, Any] = {"containers": ["c"]}
    if affinity is not None:
        spec["affinity"] = affinity
    return {"spec": {"template": {"spec": spec}}}


@pytest.mark.parametrize("name", AFFINITIES)
def test_the_patches_lead_there_and_back(name: str) -> None:
    before = AFFINITIES[name]
    switched = merged(template(before), affinity_patch(with_switch(before, LABEL)))
    assert switched == template(with_switch(before, LABEL))
    assert merged(switched, affinity_patch(without_switch(with_switch(before, LABEL), LABEL))) == (
        template(before)
    )


def test_the_label_names_the_daemonset() -> None:
    assert switch_label("kube-system", "tetragon") == "pytest-syslat/off.kube-system.tetragon"


def test_a_long_name_still_makes_a_label() -> None:
    label = switch_label("n" * 40, "d" * 40)
    assert len(label.partition("/")[2]) <= 63
    assert label != switch_label("n" * 40, "e" * 40)
