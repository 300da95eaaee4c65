"""The folder of blocks that travels to the device: what is in it, and is it complete?

`manifest.json` says what each file is and which options it stands for; there is one
file such as `k5_e3-1f0c9a2b.onnx` for each unique block, and `networks/0.onnx` and so
on for `check`.
"""

import hashlib
import json
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
        files: A dict from key to a dict with "file", "label", "inputs", "flops", ...
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
    def digest(self):
        """Identifies the blocks: equal for equal manifests, networks aside."""
        data = {k: v for k, v in self.data.items() if k != "networks"}
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
        ValueError: The folder has no manifest, a damaged one, or lacks files.
    """
    path = os.path.join(folder, "manifest.json")
    if not os.path.exists(path):
        raise ValueError(
            f"{folder} has no manifest.json: write it with python -m hardware blocks "
            f"--space SPACE --out {folder}"
        )
    data = read_json(path)
    missing = [k for k in _KEYS if not isinstance(data, dict) or k not in data]
    if missing:
        raise ValueError(f"{path} is not a complete manifest: it lacks {missing}.")
    if data["format"] != FORMAT:
        raise ValueError(
            f"Expected a manifest of format {FORMAT}. Received: {data['format']} in "
            f"{path}."
        )
    manifest = Manifest(folder, data)
    entries = [*manifest.files.values(), *manifest.networks.values()]
    lost = [e["file"] for e in entries if not os.path.exists(manifest.path(e))]
    if lost:
        raise ValueError(
            f"{folder} lacks {len(lost)} of the files that its manifest names: "
            f"{lost[:5]}. Copy the whole folder."
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


def _leaves(nested):
    """The keys in a nested list of keys; None computes nothing."""
    if isinstance(nested, list):
        return [key for value in nested for key in _leaves(value)]
    return [] if nested is None else [nested]


def read_json(path):
    """Reads a JSON file; a truncated one is a clear error."""
    try:
        with open(path) as file:
            return json.load(file)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is truncated or not JSON: {error}") from error


def write_json(path, data):
    """Writes a JSON file; it is complete or is not there."""
    with open(f"{path}.tmp", "w") as file:
        json.dump(data, file, indent=1)
    os.replace(f"{path}.tmp", path)
