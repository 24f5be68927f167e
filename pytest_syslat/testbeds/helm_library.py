"""Helm as a library (helm-python-sdk), in a process of its own: one request on stdin, as JSON."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from pytest_syslat.testbeds.kubeconfig import kubeconfig_paths

FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
"""Keys whose values are relative to the kubeconfig that they stand in."""


def perform(request: dict[str, Any]) -> None:
    """Install or uninstall; raises the library's errors."""
    from helm_python import Config

    with Config(
        namespace=request["namespace"],
        kube_context=request["context"],
        kubeconfig_content=merged_kubeconfig(),
    ) as helm:
        if request["do"] == "uninstall":
            helm.uninstall(request["release"], wait="watcher", timeout=request["limit_s"])
            return
        helm.install(
            request["chart"],
            request["release"],
            request["values"],
            labels=request["labels"],
            chart_repo_url=request["repository"],
            chart_version=request["version"],
        )


def merged_kubeconfig() -> str:
    """The user's kubeconfig as one text: the library does not read several files."""
    import yaml
    from kubernetes.config.kube_config import KubeConfigMerger

    merged = KubeConfigMerger(os.pathsep.join(map(str, kubeconfig_paths()))).config.value
    lists = {
        kind: [_placed(each.value, Path(each.path).absolute().parent) for each in merged[kind]]
        for kind in ("clusters", "contexts", "users")
    }
    return str(yaml.safe_dump({**merged, **lists}))


def _placed(entry: dict[str, Any], directory: Path) -> dict[str, Any]:
    """An entry whose files are found from anywhere: a text has no directory of its own."""
    return {
        key: {
            name: str(directory / value) if name in FILES and value else value
            for name, value in part.items()
        }
        if isinstance(part, dict)
        else part
        for key, part in entry.items()
    }


def main() -> int:
    """Perform the request; what went wrong is the last line on stderr."""
    from helm_python import HelmError

    try:
        perform(json.load(sys.stdin))
    except HelmError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
