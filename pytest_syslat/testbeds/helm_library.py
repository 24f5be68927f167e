"""Helm as a library (helm-python-sdk), in a process of its own: one request on stdin, as JSON."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from pytest_syslat.testbeds.kubeconfig import kubeconfig_paths


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
            chart_repo_url=request["repository"],
            chart_version=request["version"],
        )


def merged_kubeconfig() -> str:
    """The user's kubeconfig as one text: the library does not read several files."""
    import yaml
    from kubernetes.config.kube_config import KubeConfigMerger

    files = os.pathsep.join(map(str, kubeconfig_paths()))
    return str(yaml.safe_dump(KubeConfigMerger(files).config.value))


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
