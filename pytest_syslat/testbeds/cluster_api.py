"""The API server of a Kubernetes context: objects, waiting, and programs run in pods.

Every request has a time limit, and one that fails because the server is away for a moment is
repeated. Errors become one line for the user.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import urllib3
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.kube_config import KubeConfigMerger
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.resource import Resource
from kubernetes.stream import stream
from kubernetes.stream.ws_client import ERROR_CHANNEL, WSClient
from websocket import WebSocketException

from pytest_syslat.testbeds.kubeconfig import current_context, kubeconfig_paths
from pytest_syslat.testbeds.protocol import Completed, TestbedError, TimeLimit

FIELD_MANAGER = "pytest-syslat"
REQUEST_LIMIT_S = 15.0
PATIENCE_S = 60.0
"""How long a server that does not answer is asked again."""
PAUSE_S = 0.5
PASSING_STATUS = (0, 429, 500, 502, 503, 504)
"""HTTP codes that tell of the server's state and not of the request; 0: no answer at all."""
HANDSHAKE = re.compile(r"Handshake status ([0-9]+) ([^-+]*)")
KINDS = {
    "Namespace": ("", "v1", "namespaces"),
    "Node": ("", "v1", "nodes"),
    "Pod": ("", "v1", "pods"),
    "ConfigMap": ("", "v1", "configmaps"),
    "Event": ("", "v1", "events"),
    "Secret": ("", "v1", "secrets"),
    "DaemonSet": ("apps", "v1", "daemonsets"),
    "Lease": ("coordination.k8s.io", "v1", "leases"),
}
"""Group, version and plural of the kinds that are used."""
CLUSTER_WIDE = ("Namespace", "Node")

Object = dict[str, Any]
Answer = TypeVar("Answer")


class NotFound(TestbedError):
    """There is no such object."""


class AlreadyThere(TestbedError):
    """Somebody has made such an object before."""


class Unreachable(TestbedError):
    """The server does not answer."""


class GivenUp(Unreachable):
    """The server has not answered for so long that waiting again is in vain."""


class _LimitedClient(client.ApiClient):
    """Gives each request a time limit."""

    def call_api(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["_request_timeout"] = kwargs.get("_request_timeout") or REQUEST_LIMIT_S
        return super().call_api(*args, **kwargs)


class _NoDiscovery:
    """Spares the dynamic client its question for all kinds of the server.

    It would keep the answer in a file with a guessable name in the directory for temporary files,
    and believe what it finds there.
    """

    def __init__(self, *_: object) -> None:
        """Nothing is asked."""


class _Nothing:
    """Takes the library's second copy of all that a connection prints, and forgets it."""

    def write(self, _text: str) -> None:
        """Forget it."""


class ClusterApi:
    """One context of the user's kubeconfig."""

    def __init__(self, context: str | None) -> None:
        """Read the kubeconfig; raises TestbedError. Nothing is asked yet.

        Args:
            context: Its name; None for the current one.
        """
        paths = kubeconfig_paths()
        if not paths:
            raise TestbedError(
                "--syslat-testbed: no kubeconfig: set KUBECONFIG, or add --syslat-testbed=local"
            )
        files = os.pathsep.join(map(str, paths))
        self._configuration = client.Configuration()
        # Of several files the library takes the last one's current context, kubectl the first's.
        wanted = context or current_context()
        try:
            merged = KubeConfigMerger(files).config
            names = [str(each["name"]) for each in merged.value["contexts"]]
            if context is not None and context not in names:
                raise TestbedError(
                    f"--syslat-kube-context: no context {context!r}: allowed is {', '.join(names)}"
                )
            if wanted is None:
                raise TestbedError(
                    "--syslat-kube-context: the kubeconfig names no current context: "
                    f"give one of {', '.join(names)}"
                )
            config.load_kube_config(files, context=wanted, client_configuration=self._configuration)
        except (config.ConfigException, yaml.YAMLError, OSError, TypeError) as error:
            raise TestbedError(f"the kubeconfig {files} cannot be used: {_short(error)}") from error
        self.context = wanted
        self.server = str(self._configuration.host)
        self._configuration.retries = urllib3.Retry(total=0)
        self._client = _LimitedClient(self._configuration)
        self._dynamic = DynamicClient(self._client, discoverer=_NoDiscovery)
        self._resources = {
            kind: self._resource(group, version, kind, plural, namespaced=kind not in CLUSTER_WIDE)
            for kind, (group, version, plural) in KINDS.items()
        }
        self._away_since_s: float | None = None
        self._ahead = timedelta(0)

    def _resource(
        self, group: str, version: str, kind: str, plural: str, *, namespaced: bool
    ) -> Resource:
        return Resource(
            prefix="apis" if group else "api",
            group=group,
            api_version=version,
            kind=kind,
            namespaced=namespaced,
            verbs=[],
            name=plural,
            client=self._dynamic,
        )

    def learn(self, api_version: str, kind: str) -> None:
        """Ask the server for a kind beside those that are known; raises NotFound.

        Args:
            api_version: Such as `cilium.io/v1alpha1`.
            kind: Such as `TracingPolicyNamespaced`. Later requests need the kind alone.
        """
        if kind in self._resources:
            return
        group, _, version = api_version.rpartition("/")
        path = f"/apis/{api_version}" if group else f"/api/{api_version}"
        listed: Object = self._asked(f"find {kind} of {api_version}", lambda: self._plain_get(path))
        for each in listed.get("resources", []):
            if each["kind"] == kind and "/" not in each["name"]:
                self._resources[kind] = self._resource(
                    group, version, kind, each["name"], namespaced=each["namespaced"]
                )
                return
        raise NotFound(f"cannot find {kind} of {api_version}: the server does not know it")

    def _plain_get(self, path: str) -> Object:
        return dict(json.loads(self._dynamic.request("get", path, serialize=False).data))

    def is_namespaced(self, kind: str) -> bool:
        """Whether objects of a known kind are in namespaces."""
        return bool(self._resources[kind].namespaced)

    def version(self) -> str:
        """The server's version; raises Unreachable at once if it does not answer."""
        try:
            told, _, headers = client.VersionApi(self._client).get_code_with_http_info()
        except (ApiException, urllib3.exceptions.HTTPError) as error:
            raise _translated(error, f"ask context {self.context}", self.server) from error
        if headers.get("Date"):
            self._ahead = parsedate_to_datetime(headers["Date"]) - datetime.now(UTC)
        return str(told.git_version)

    @property
    def ahead_s(self) -> float:
        """Seconds by which the server's clock is ahead of ours, once it has told its version."""
        return self._ahead.total_seconds()

    def may(
        self,
        verb: str,
        group: str,
        resource: str,
        namespace: str | None = None,
        name: str | None = None,
    ) -> bool:
        """Whether the user may do something, by the server's own word; nothing is changed.

        Args:
            verb: Such as `create`.
            group: Of the resource; empty for the core group.
            resource: Such as `pods` or `pods/exec`.
            namespace: None for what is in no namespace.
            name: Of the one object; None for any.
        """
        plain, _, part = resource.partition("/")
        review = client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(
                resource_attributes=client.V1ResourceAttributes(
                    verb=verb,
                    group=group,
                    resource=plain,
                    subresource=part,
                    namespace=namespace,
                    name=name,
                )
            )
        )
        answer = self._asked(
            f"ask whether {verb} {resource} is allowed",
            lambda: client.AuthorizationV1Api(self._client).create_self_subject_access_review(
                review
            ),
        )
        return bool(answer.status and answer.status.allowed)

    def now(self) -> datetime:
        """The time by the server's clock, once it has told its version: all runs agree on it."""
        return datetime.now(UTC) + self._ahead

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object:
        """Read one object; raises NotFound."""
        return self._asked(
            f"read {kind} {name}",
            lambda: self._resources[kind].get(name=name, namespace=namespace).to_dict(),
        )

    def find(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """Read one object, None if it isn't there."""
        try:
            return self.get(kind, name, namespace)
        except NotFound:
            return None

    def list(self, kind: str, namespace: str | None = None, selector: str = "") -> list[Object]:
        """Read all objects of a kind that carry the labels of `selector`."""
        found: Object = self._asked(
            f"list {kind}s",
            lambda: (
                self._resources[kind]
                .get(namespace=namespace, label_selector=selector or None)
                .to_dict()
            ),
        )
        return list(found.get("items", []))

    def create(self, body: Object) -> Object:
        """Create an object; raises AlreadyThere."""
        return self._asked(
            f"create {body['kind']} {body['metadata']['name']}",
            lambda: (
                self._resources[body["kind"]]
                .create(
                    body=body,
                    namespace=body["metadata"].get("namespace"),
                    field_manager=FIELD_MANAGER,
                )
                .to_dict()
            ),
        )

    def apply(self, body: Object) -> Object:
        """Bring an object into the state of `body` by server-side apply."""
        return self._asked(
            f"apply {body['kind']} {body['metadata']['name']}",
            lambda: (
                self._resources[body["kind"]]
                .server_side_apply(
                    body=body,
                    namespace=body["metadata"].get("namespace"),
                    field_manager=FIELD_MANAGER,
                    force_conflicts=True,
                )
                .to_dict()
            ),
        )

    def patch(self, kind: str, name: str, namespace: str | None, change: Object) -> Object:
        """Change an object by a merge patch, in which None removes a field; raises NotFound."""
        return self._asked(
            f"change {kind} {name}",
            lambda: (
                self._resources[kind]
                .patch(
                    body=change,
                    name=name,
                    namespace=namespace,
                    content_type="application/merge-patch+json",
                    field_manager=FIELD_MANAGER,
                )
                .to_dict()
            ),
        )

    def log(self, pod: str, namespace: str, container: str) -> str:
        """What a container has printed since it was started; raises TestbedError."""
        return self._asked(
            f"read the log of pod {pod}",
            lambda: str(
                client.CoreV1Api(self._client).read_namespaced_pod_log(
                    pod, namespace, container=container
                )
            ),
        )

    def replace(self, body: Object) -> Object:
        """Replace an object as it was read; raises AlreadyThere if it has changed meanwhile."""
        return self._asked(
            f"replace {body['kind']} {body['metadata']['name']}",
            lambda: (
                self._resources[body["kind"]]
                .replace(
                    body=body,
                    namespace=body["metadata"].get("namespace"),
                    field_manager=FIELD_MANAGER,
                )
                .to_dict()
            ),
        )

    def delete(self, body: Object) -> bool:
        """Ask for the deletion of an object as it was read, and of what belongs to it.

        Returns:
            False if it is gone, or another one has taken its name.
        """
        kind, metadata = body["kind"], body["metadata"]
        options = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "preconditions": {"uid": metadata["uid"]},
            "propagationPolicy": "Background",
        }
        try:
            self._asked(
                f"delete {kind} {metadata['name']}",
                lambda: self._resources[kind].delete(
                    name=metadata["name"], namespace=metadata.get("namespace"), body=options
                ),
            )
        except (NotFound, AlreadyThere):
            return False
        return True

    def connect(self, pod: str, namespace: str, container: str, argv: Sequence[str]) -> WSClient:
        """Start a program in a pod and stay connected to it.

        A thread of its own makes the connection: the library has no time limit for it, and turns
        the user's Ctrl-C into an error of its own.

        Raises:
            NotFound: There is no such pod.
            GivenUp: The server has not answered for a long time.
            TestbedError: It did not work this time.
        """
        try:
            made = self._connected(pod, namespace, container, argv)
        except Unreachable as error:
            if self._is_given_up():
                raise GivenUp(str(error)) from error
            raise
        self._away_since_s = None
        return made

    def _connected(self, pod: str, namespace: str, container: str, argv: Sequence[str]) -> WSClient:
        outcome: list[WSClient | BaseException] = []
        given_up = threading.Event()

        def dial() -> None:
            try:
                made = stream(
                    client.CoreV1Api(
                        client.ApiClient(self._configuration)
                    ).connect_get_namespaced_pod_exec,
                    pod,
                    namespace,
                    container=container,
                    command=list(argv),
                    stdin=True,
                    stdout=True,
                    stderr=True,
                    tty=False,
                    _preload_content=False,
                )
            except BaseException as error:
                outcome.append(error)
                return
            outcome.append(made)
            if given_up.is_set():
                hang_up(made)

        thread = threading.Thread(target=dial, daemon=True)
        thread.start()
        try:
            thread.join(REQUEST_LIMIT_S)
        finally:
            given_up.set()
        if not outcome:
            raise Unreachable(f"{self.server} did not connect to pod {pod}")
        [made] = outcome
        if isinstance(made, BaseException):
            if not isinstance(made, ApiException | urllib3.exceptions.HTTPError | OSError):
                raise made
            raise _translated(made, f"run a program in pod {pod}", self.server) from made
        made.sock.settimeout(REQUEST_LIMIT_S)
        vars(made)["_all"] = _Nothing()
        return made

    def run(
        self, pod: str, namespace: str, container: str, argv: Sequence[str], timeout_s: float
    ) -> Completed:
        """Run a program in a pod to its end by an exec of its own; raises TestbedError."""
        connection = self.connect(pod, namespace, container, argv)
        try:
            try:
                connection.run_forever(timeout=timeout_s)
            except (OSError, WebSocketException) as error:
                raise Unreachable(f"the connection to pod {pod} was lost: {error}") from error
            if connection.is_open():
                raise TimeLimit(f"{argv[0]} did not end within {timeout_s:g} s in pod {pod}")
            code = exit_code(connection.read_channel(ERROR_CHANNEL))
            if code is None:
                raise Unreachable(f"the connection to pod {pod} was lost")
            return Completed(
                tuple(argv), code, connection.read_stdout(0), connection.read_stderr(0)
            )
        finally:
            hang_up(connection)

    def close(self) -> None:
        """Close all connections that are kept for further requests."""
        self._client.rest_client.pool_manager.clear()

    def wait(
        self,
        condition: Callable[[], Answer | None],
        limit_s: float,
        problem: Callable[[], str],
        pause_s: float = 0.2,
    ) -> Answer:
        """Ask for a condition until it answers; after `limit_s` raises TestbedError."""
        deadline = time.monotonic() + limit_s
        while True:
            answer = condition()
            if answer is not None:
                return answer
            if time.monotonic() > deadline:
                raise TestbedError(problem())
            time.sleep(pause_s)

    def _asked(self, what: str, ask: Callable[[], Answer]) -> Answer:
        while True:
            try:
                answer = ask()
            except (ApiException, urllib3.exceptions.HTTPError) as error:
                passing = getattr(error, "status", 0) in PASSING_STATUS
                if not passing or self._is_given_up():
                    raise _translated(error, what, self.server) from error
            else:
                self._away_since_s = None
                return answer
            time.sleep(PAUSE_S)

    def _is_given_up(self) -> bool:
        """Whether the server has been away for too long; called when it has not answered.

        The wait is one for all requests: whoever has waited in vain does not wait again with each
        further request, but asks once.
        """
        if self._away_since_s is None:
            self._away_since_s = time.monotonic()
        return time.monotonic() - self._away_since_s > PATIENCE_S


def hang_up(connection: WSClient) -> None:
    """Close a connection to a pod, whatever state it is in."""
    # Without a goodbye: the library's swallows the user's Ctrl-C, and leaves the socket open where
    # the other side was faster.
    connection.sock.shutdown()


def exit_code(status: str) -> int | None:
    """The exit code in what the error channel of an exec says; None if it says none."""
    try:
        told = yaml.safe_load(status)
    except yaml.YAMLError:
        return None
    if not isinstance(told, dict):
        return None
    if told.get("status") == "Success":
        return 0
    for cause in (told.get("details") or {}).get("causes", []):
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    return None


def _translated(error: Exception, what: str, server: str) -> TestbedError:
    """One line for the user."""
    status = getattr(error, "status", None)
    refused = HANDSHAKE.match(str(getattr(error, "reason", "")))
    if refused and int(refused[1]) not in PASSING_STATUS:
        # The library tells why a connection to a pod was refused in the text alone.
        error = ApiException(status=int(refused[1]), reason=refused[2].strip())
        status = error.status
    if not isinstance(error, ApiException) or not status:
        reason = getattr(error, "reason", None) or error
        return Unreachable(f"cannot {what}: {server} does not answer ({_short(reason)})")
    try:
        told = str(json.loads(getattr(error, "body", None) or "{}").get("message") or error.reason)
    except (ValueError, AttributeError):
        told = str(error.reason)
    if status == 404:
        return NotFound(f"cannot {what}: {told}")
    if status == 409:
        return AlreadyThere(f"cannot {what}: {told}")
    if status == 401:
        return TestbedError(f"cannot {what}: the account of the kubeconfig is not accepted")
    # Quotas and admission rules refuse with the same status: no right would help there.
    if status == 403 and (" cannot " in told or told == "Forbidden"):
        return TestbedError(
            f"cannot {what}: {told}; an administrator can allow it: "
            "kubectl apply -k manifests/rbac, then bind the account to its roles; agents need an "
            "administrator's account"
        )
    return TestbedError(f"cannot {what}: {told}")


def _short(reason: object) -> str:
    text = " ".join(str(reason).split())
    return text if len(text) <= 160 else text[:157] + "..."
