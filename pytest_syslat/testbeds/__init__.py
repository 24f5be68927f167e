"""Where a measurement happens: this host, or (later) the pods of a Kubernetes node."""
