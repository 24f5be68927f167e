"""The API server, asked with the pod's own service account."""

from __future__ import annotations

import http.client
import json
import os
import ssl
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
REQUEST_LIMIT_S = 5.0

Object = dict[str, Any]


class ApiError(Exception):
    """The API server refuses; `code` is HTTP's."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class Api:
    """A client that opens a connection for each request."""

    def __init__(self) -> None:
        self._context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))

    def request(
        self, method: str, path: str, body: object = None, kind: str = "application/json"
    ) -> Object:
        """The answer's object; raises ApiError, or OSError when nobody answers."""
        connection = http.client.HTTPSConnection(
            os.environ["KUBERNETES_SERVICE_HOST"],
            int(os.environ["KUBERNETES_SERVICE_PORT"]),
            timeout=REQUEST_LIMIT_S,
            context=self._context,
        )
        try:
            # The token may have been renewed.
            token = (ACCOUNT / "token").read_text()
            headers = {"Authorization": f"Bearer {token}", "Content-Type": kind}
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, headers)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        if response.status >= 300:
            raise ApiError(response.status, text)
        answer: Object = json.loads(text)
        return answer

    def items(self, path: str) -> list[Object]:
        """The listed objects; none where the kind is not known, or not known yet."""
        try:
            listed: list[Object] = self.request("GET", path)["items"]
        except ApiError as error:
            if error.code != 404:
                raise
            return []
        return listed


def pods(api: Api, namespace: str, labels: dict[str, str]) -> list[Object]:
    """The pods with these labels that run on this pod's cluster."""
    listed = api.items(f"/api/v1/namespaces/{namespace}/pods")
    return [
        pod
        for pod in listed
        if labels.items() <= (pod["metadata"].get("labels") or {}).items()
        and pod["status"].get("phase") == "Running"
        and "deletionTimestamp" not in pod["metadata"]
    ]
