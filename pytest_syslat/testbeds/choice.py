"""Which testbed a run uses, and opening it; also clearing it of earlier runs."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

from pytest_syslat.settings import Settings
from pytest_syslat.testbeds.kubeconfig import current_context
from pytest_syslat.testbeds.protocol import Testbed, TestbedError

KUBERNETES_ONLY = ("kube_context", "node", "image", "keep")


def chosen_testbed(settings: Settings) -> str:
    """`local` or `kubernetes`: under `auto`, Kubernetes where a context is current or named.

    Raises:
        TestbedError: An option has no meaning there.
    """
    given = [name for name in KUBERNETES_ONLY if getattr(settings, name)]
    if settings.testbed == "auto":
        # Named options ask for a cluster; without them it is looked for.
        return "kubernetes" if given or current_context() else "local"
    if settings.testbed == "local" and given:
        raise TestbedError(
            f"--syslat-{given[0].replace('_', '-')}: has no meaning on this host: leave it out, "
            "or add --syslat-testbed=kubernetes"
        )
    return settings.testbed


def open_testbed(
    settings: Settings,
    rootdir: Path,
    *,
    warn: list[str],
    keep_note: list[str],
    register: Callable[[Callable[[], list[str]]], object],
) -> Testbed:
    """Open the testbed that the settings ask for; raises TestbedError.

    Args:
        settings: What the user asked for.
        rootdir: pytest's rootdir.
        warn: Takes warnings, also later ones.
        keep_note: Takes the commands that show what is kept.
        register: Called with what closes the testbed before anything is made.
    """
    run_id = uuid.uuid4().hex[:8]
    if chosen_testbed(settings) == "local":
        from pytest_syslat.testbeds.cores import choose_core
        from pytest_syslat.testbeds.local import LocalTestbed, may_be_pinned_to, usable_cores

        core, warning = choose_core(settings.pin_core, usable_cores(), may_be_pinned_to)
        if warning:
            warn.append(f"--syslat-pin-core: {warning}")
        local = LocalTestbed(core=core, run_id=run_id)
        register(lambda: _closed(local.close))
        return local
    from pytest_syslat.testbeds.cluster_api import Unreachable
    from pytest_syslat.testbeds.kubernetes import KubernetesTestbed

    cluster = KubernetesTestbed(
        run_id=run_id,
        rootdir=rootdir,
        pin_core=settings.pin_core,
        context=settings.kube_context,
        node=settings.node,
        image=settings.image,
        drop_caches=settings.drop_caches,
        keep=settings.keep,
        warnings=warn,
    )

    def close() -> list[str]:
        left = _closed(cluster.close)
        if settings.keep and not left:
            keep_note.extend(cluster.how_to_look())
        return left

    register(close)
    try:
        cluster.open()
    except Unreachable as error:
        # Who has an old kubeconfig may not have meant a cluster at all.
        mend = "; to measure this host instead: --syslat-testbed=local"
        raise TestbedError(f"{error}{mend if settings.testbed == 'auto' else ''}") from error
    return cluster


def _closed(close: Callable[[], None]) -> list[str]:
    try:
        close()
    except (TestbedError, OSError) as error:
        return [str(error)]
    except Exception as error:  # a mistake of ours must not hide what is left
        return [f"unexpected: {error!r}; pytest benchmarks --syslat-clean removes what is left"]
    return []


def clean(settings: Settings) -> tuple[str, list[str]]:
    """Remove what earlier runs left where this one would measure.

    Returns:
        The place, in words, and what was removed from it.

    Raises:
        TestbedError: Something could not be removed, or a run is at work.
    """
    if chosen_testbed(settings) == "local":
        from pytest_syslat.testbeds.local_leftovers import clean_host

        return "this host", clean_host()
    from pytest_syslat.testbeds.cluster_api import ClusterApi
    from pytest_syslat.testbeds.cluster_claim import clean as clean_cluster

    api = ClusterApi(settings.kube_context)
    try:
        return f"context {api.context}", clean_cluster(api)
    finally:
        api.close()
