"""Keeping a DaemonSet off one node: a condition in its template, and a label on the node.

The condition is put into the template once. Then the label alone switches: the controller removes
the node's pod, or makes it again, and the pods of other nodes stay as they are. A selector that is
put into the template at each switch would take the agent off all nodes, and have the controller
replace all its pods each time.
"""

from __future__ import annotations

import copy
import hashlib
from typing import Any

Object = dict[str, Any]
LONGEST_NAME = 63
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def switch_label(namespace: str, name: str) -> str:
    """The label that keeps a DaemonSet off a node."""
    text = f"off.{namespace}.{name}"
    if len(text) > LONGEST_NAME:
        text = f"off.{hashlib.sha256(text.encode()).hexdigest()[:32]}"
    return f"pytest-syslat/{text}"


def with_switch(affinity: Object | None, label: str) -> Object:
    """An affinity that keeps pods off nodes with a label, whatever it says besides."""
    changed = without_switch(affinity, label) or {}
    node = changed.setdefault("nodeAffinity", {})
    required = node.setdefault(REQUIRED, {})
    terms = required.get("nodeSelectorTerms") or [{}]
    # Terms are alternatives: each must keep off.
    required["nodeSelectorTerms"] = [
        {**term, "matchExpressions": [*term.get("matchExpressions", []), _condition(label)]}
        for term in terms
    ]
    return changed


def without_switch(affinity: Object | None, label: str) -> Object | None:
    """The same affinity without our condition; None if nothing else was in it."""
    changed = copy.deepcopy(affinity) or {}
    node = changed.get("nodeAffinity") or {}
    terms = (node.get(REQUIRED) or {}).get("nodeSelectorTerms") or []
    kept = []
    for term in terms:
        conditions = [
            each for each in term.get("matchExpressions", []) if each != _condition(label)
        ]
        rest = {key: value for key, value in term.items() if key != "matchExpressions"}
        if conditions:
            rest["matchExpressions"] = conditions
        if rest:
            kept.append(rest)
    if kept:
        node[REQUIRED]["nodeSelectorTerms"] = kept
    else:
        node.pop(REQUIRED, None)
    if "nodeAffinity" in changed and not node:
        del changed["nodeAffinity"]
    return changed or None


def affinity_patch(affinity: Object | None) -> Object:
    """The merge patch that gives a DaemonSet's pods an affinity.

    A merge patch adds to what is there, so what must go is named.
    """
    required = ((affinity or {}).get("nodeAffinity") or {}).get(REQUIRED)
    if affinity is None:
        return {"spec": {"template": {"spec": {"affinity": None}}}}
    node = {**(affinity.get("nodeAffinity") or {}), REQUIRED: required}
    change: Object = {**affinity, "nodeAffinity": node if any(node.values()) else None}
    return {"spec": {"template": {"spec": {"affinity": change}}}}


def _condition(label: str) -> Object:
    return {"key": label, "operator": "DoesNotExist"}
