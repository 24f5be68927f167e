"""Which cluster kubectl would use."""

from __future__ import annotations

import os
from pathlib import Path


def kubeconfig_paths() -> list[Path]:
    """The kubeconfig files that exist: `$KUBECONFIG`, else `~/.kube/config`."""
    named = os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())
    return [path for each in named.split(os.pathsep) if each and (path := Path(each)).is_file()]


def current_context() -> str | None:
    """The context that kubectl would use; None where there is none."""
    import yaml

    # As for kubectl, the first file that names one wins.
    for path in kubeconfig_paths():
        try:
            content = yaml.safe_load(path.read_text())
        except (OSError, yaml.YAMLError):
            continue
        if isinstance(content, dict) and content.get("current-context"):
            return str(content["current-context"])
    return None
