"""The folder of blocks that travels to the device: what is in it, and is it complete?

`manifest.json` says what each file is and which options it stands for; there is one
file such as `k5_e3-1f0c9a2b.onnx` for each unique block, and `networks/0.onnx` and so
on for `check`.
"""

import hashlib
import json
import math
import os

FORMAT = 1
_KEYS = (
    "format",
    "name",
    "source",
    "batch",
    "precision",
    "space",
    "files",
    "layout",
    "networks",
)


class Manifest:
    """A folder of blocks.

    Args:
        folder: The folder.
        data: The content of its manifest.json.

    Attributes:
        files: A dict from key to a dict with "file", "sha256", "label", "inputs",
            "flops", ...
        networks: Likewise for whole networks, with their "path".
        layout: Which keys a path adds up: "base", a list of keys, and "blocks", each
            with "name", "decisions" and "options" (a key or None for each joint
            option, nested as deep as there are decisions).
    """

    def __init__(self, folder, data):
        self.folder = folder
        self.data = data
        self.batch = data["batch"]
        self.precision = data["precision"]
        self.files = data["files"]
        self.layout = data["layout"]
        self.networks = data["networks"]

    @property
    def paths(self):
        """How many paths the space has."""
        return math.prod(len(d["options"]) for d in self.data["space"]["decisions"])

    @property
    def digest(self):
        """Identifies the blocks: equal for equal manifests, networks aside."""
        aside = ("networks", "network")
        data = {k: v for k, v in self.data.items() if k not in aside}
        # Weights are drawn anew in each export: blocks are equal, the files are not.
        data["files"] = {key: without_hash(f) for key, f in self.files.items()}
        return hashlib.sha1(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]

    def path(self, entry):
        """The path of an entry's file."""
        return os.path.join(self.folder, entry["file"])

    def save(self):
        """Writes manifest.json; the file is complete or is not there."""
        write_json(os.path.join(self.folder, "manifest.json"), self.data)


def read_manifest(folder):
    """Reads and checks a folder of blocks.

    Raises:
        ValueError: The folder has no manifest, a damaged one, lacks files, or has
            others than were exported.
    """
    path = os.path.join(folder, "manifest.json")
    if not os.path.exists(path):
        raise ValueError(
            f"{folder} has no manifest.json: write it with python -m hardware blocks "
            f"--space SPACE --out {folder}"
        )
    data = read_json(path)
    check_keys(path, "manifest", data, _KEYS)
    if data["format"] != FORMAT:
        raise ValueError(
            f"Expected a manifest of format {FORMAT}. Received: {data['format']} in "
            f"{path}."
        )
    check_keys(path, "manifest", data["layout"], ("base", "blocks"), "its layout")
    for block in data["layout"]["blocks"]:
        keys = ("name", "decisions", "options")
        check_keys(path, "manifest", block, keys, "a block of its layout")
    for part, keys in (("files", ("file",)), ("networks", ("file", "path"))):
        check_keys(path, "manifest", data[part], (), f"its {part}")
        for name, entry in data[part].items():
            check_keys(path, "manifest", entry, keys, f"{name!r} of its {part}")
    manifest = Manifest(folder, data)
    entries = [*manifest.files.values(), *manifest.networks.values()]
    lost = [e["file"] for e in entries if not os.path.exists(manifest.path(e))]
    if lost:
        raise ValueError(
            f"{folder} lacks {len(lost)} of the files that its manifest names: "
            f"{lost[:5]}. Copy the whole folder."
        )
    # Folders of earlier versions have no hashes.
    changed = [
        e["file"]
        for e in entries
        if "sha256" in e and e["sha256"] != sha256(manifest.path(e))
    ]
    if changed:
        raise ValueError(
            f"Expected the files that were exported to {folder}. Received: "
            f"{len(changed)} others under their names, {changed[:5]}. Copy the whole "
            "folder, or export the blocks again."
        )
    layout = [
        manifest.layout["base"],
        [b["options"] for b in manifest.layout["blocks"]],
    ]
    unknown = sorted(k for k in set(_leaves(layout)) if k not in manifest.files)
    if unknown:
        raise ValueError(
            f"Expected {path} to name a file for each block of its layout. Received: "
            f"none for {unknown[:5]}. Export the blocks again."
        )
    return manifest


def check_keys(path, kind, data, keys, where="it"):
    """Raises ValueError unless `data`, a part of a JSON file, is a dict with `keys`."""
    if not isinstance(data, dict):
        raise ValueError(
            f"{path} is not a complete {kind}: {where} is no dict. "
            f"Received: {json.dumps(data)[:80]}"
        )
    missing = [key for key in keys if key not in data]
    if missing:
        raise ValueError(f"{path} is not a complete {kind}: {where} lacks {missing}.")


def sha256(path):
    """The hash of a file, by which another one under its name is seen."""
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def without_hash(entry):
    """An entry without the file's hash."""
    return {key: value for key, value in entry.items() if key != "sha256"}


def _leaves(nested):
    """The keys in a nested list of keys; None computes nothing."""
    if isinstance(nested, list):
        return [key for value in nested for key in _leaves(value)]
    return [] if nested is None else [nested]


def read_json(path):
    """Reads a JSON file; a truncated one is a clear error."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is truncated or not JSON: {error}") from error


def write_json(path, data):
    """Writes a JSON file; it is complete or is not there."""
    with open(f"{path}.tmp", "w") as file:
        json.dump(data, file, indent=1)
    os.replace(f"{path}.tmp", path)
