#!/usr/bin/env python3
"""derived_images.py BASE DIRECTORY IMAGES ARCHIVE: images that add one layer to another image.

BASE is an archive in the form of "docker save", DIRECTORY what the layer has, IMAGES a JSON list of
{"name": …, "config": …}. ARCHIVE is in the form of the Open Container Initiative. The base's own
layers are only named in it, not copied: "ctr images import" finds them once BASE was imported.
"""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

MEDIA = "application/vnd.oci.image"

Object = dict[str, Any]


def base_image(archive: str) -> tuple[Object, list[Object]]:
    """The base's configuration, and a descriptor of each of its layers."""
    with tarfile.open(archive) as tar:

        def read(member: str) -> Any:
            file = tar.extractfile(member)
            assert file
            return json.load(file)

        manifest = read("manifest.json")[0]
        config: Object = read(manifest["Config"])
        layers = [
            {
                "mediaType": f"{MEDIA}.layer.v1.tar",
                "digest": digest,
                "size": tar.getmember(file).size,
            }
            for digest, file in zip(config["rootfs"]["diff_ids"], manifest["Layers"], strict=True)
        ]
    return config, layers


def pack(directory: str) -> bytes:
    """The directory as a layer, the same bytes for the same contents."""
    command = ["tar", "--numeric-owner", "--owner=0", "--group=0", "--sort=name", "--mtime=@0"]
    with tempfile.TemporaryFile() as file:
        subprocess.run([*command, "-C", directory, "-c", "."], check=True, stdout=file)
        file.seek(0)
        return file.read()


class Archive:
    """The archive while it is written."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._written: set[str] = set()

    def file(self, member: str, contents: bytes) -> None:
        """Add a file, unless it is there."""
        if member not in self._written:
            self._written.add(member)
            info = tarfile.TarInfo(member)
            info.size = len(contents)
            self._tar.addfile(info, io.BytesIO(contents))

    def blob(self, contents: bytes, media: str) -> Object:
        """Add something that is named by its sum; return what describes it."""
        name = hashlib.sha256(contents).hexdigest()
        self.file(f"blobs/sha256/{name}", contents)
        return {"mediaType": MEDIA + media, "digest": f"sha256:{name}", "size": len(contents)}


def main() -> None:
    """Write the archive."""
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    base, directory, images, archive = sys.argv[1:]
    base_config, layers = base_image(base)
    contents = pack(directory)
    listed = []
    with tarfile.open(archive, "w") as tar:
        new = Archive(tar)
        layer = new.blob(contents, ".layer.v1.tar")
        for image in json.loads(Path(images).read_text()):
            config = {
                "architecture": base_config["architecture"],
                "os": base_config["os"],
                "config": {"Env": base_config["config"]["Env"], **image["config"]},
                "rootfs": {
                    "type": "layers",
                    "diff_ids": [*base_config["rootfs"]["diff_ids"], layer["digest"]],
                },
            }
            manifest = {
                "schemaVersion": 2,
                "mediaType": f"{MEDIA}.manifest.v1+json",
                "config": new.blob(json.dumps(config).encode(), ".config.v1+json"),
                "layers": [*layers, layer],
            }
            described = new.blob(json.dumps(manifest).encode(), ".manifest.v1+json")
            described["annotations"] = {"io.containerd.image.name": image["name"]}
            listed.append(described)
        new.file("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
        new.file("index.json", json.dumps({"schemaVersion": 2, "manifests": listed}).encode())


if __name__ == "__main__":
    main()
