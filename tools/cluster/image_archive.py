#!/usr/bin/env python3
"""image_archive.py NAME:TAG DIRECTORY ARCHIVE [CONFIG]: pack a root file system as an image.

The archive has the form that "docker save" writes and "ctr images import" reads, with one layer.
CONFIG is a JSON object with entries of the image's configuration, such as {"Cmd": ["bash"]}.
"""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ENVIRONMENT = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def pack_layer(directory: str, layer: Path) -> str:
    """Pack the directory; return the layer's name, which is the sum of its contents."""
    command = ["tar", "--numeric-owner", "--one-file-system", "--sort=name", "-C", directory]
    command += ["--exclude=./proc/*", "--exclude=./sys/*", "--exclude=./dev/*", "-cf", str(layer)]
    subprocess.run([*command, "."], check=True)
    with layer.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """Pack one image."""
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    name, directory, archive = sys.argv[1:4]
    config = json.loads(sys.argv[4]) if len(sys.argv) == 5 else {}
    machine = subprocess.run(["uname", "-m"], check=True, capture_output=True, text=True)
    with tempfile.TemporaryDirectory(dir=Path(archive).parent) as work:
        layer = Path(work, "layer.tar")
        layer_sum = pack_layer(directory, layer)
        image = {
            "architecture": ARCHITECTURES[machine.stdout.strip()],
            "os": "linux",
            "created": "2021-01-01T00:00:00Z",
            "config": {"Env": ENVIRONMENT, **config},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_sum}"]},
            "history": [{"created_by": "image_archive.py"}],
        }
        image_json = json.dumps(image).encode()
        image_file = hashlib.sha256(image_json).hexdigest() + ".json"
        layer_file = f"{layer_sum}/layer.tar"
        manifest = [{"Config": image_file, "RepoTags": [name], "Layers": [layer_file]}]
        with tarfile.open(archive, "w") as tar:

            def add(member: str, contents: bytes) -> None:
                info = tarfile.TarInfo(member)
                info.size = len(contents)
                tar.addfile(info, io.BytesIO(contents))

            add(image_file, image_json)
            tar.add(layer, layer_file)
            add("manifest.json", json.dumps(manifest).encode())


if __name__ == "__main__":
    main()
