"""What every recipe shares: its arguments, and its output folder with provenance."""

import argparse
import dataclasses
import datetime
import errno
import importlib
import importlib.metadata
import json
import os
import shlex
import subprocess
import sys
import time
import zlib

import numpy as np

from hardware.engines.device import cpu_name, gpu


def arguments(description, presets):
    """Parses the command line of a recipe without arguments of its own."""
    return parser_for(description, presets).parse_args()


def parser_for(description, presets):
    """The arguments that every recipe takes.

    Args:
        description: One line about the recipe.
        presets: Names of its presets; the first is the default.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--preset", choices=presets, default=presets[0])
    parser.add_argument(
        "--data-dir",
        type=_existing_folder,
        default=os.environ.get("KERAS_SPOS_DATA"),
        help="folder with the data set (default: the variable KERAS_SPOS_DATA)",
    )
    parser.add_argument(
        "--output-dir",
        type=os.path.expanduser,
        help="default: runs/<recipe>-<preset>",
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on with what is in the output folder"
    )
    parser.add_argument("--seed", type=_seed, default=0)
    parser.add_argument(
        "--recompute",
        action="store_true",
        help="train supernets with less memory, in more time",
    )
    return parser


def existing_file(path):
    """The type of an argument that names a file, which may be read days later."""
    path = os.path.expanduser(path)
    if not os.path.isfile(path):
        raise argparse.ArgumentTypeError(
            f"Expected a file that exists. Received: {path}"
        )
    return path


def checksum(model):
    """Of a model's weights, as text."""
    return checksum_of(model.get_weights())


def checksum_of(arrays):
    """Of arrays, as text."""
    total = 0
    for array in arrays:
        total = zlib.crc32(np.ascontiguousarray(array), total)
    return f"{total:08x}"


def _existing_folder(path):
    # Shells leave the ~ of --data-dir=~/data as it is.
    path = os.path.expanduser(path)
    # TensorFlow Datasets would create what is mistyped, and download into it.
    if path and not os.path.isdir(path):
        raise argparse.ArgumentTypeError(
            "Expected a folder that exists, here or in the variable KERAS_SPOS_DATA. "
            f"Received: {path}"
        )
    return path


def _seed(text):
    seed = int(text)
    # NumPy's global generator takes 32 bits, and supernets of one run 1000 * seed + n.
    most = 2**32 // 1000 - 1
    if not 0 <= seed <= most:
        raise argparse.ArgumentTypeError(f"Expected 0 to {most}. Received: {seed}")
    return seed


class Output:
    """A recipe's output folder.

    Args:
        recipe: The recipe's name.
        args: What `arguments` returned.
        same: Names of the recipe's own arguments that a run which goes on has in common
            with the one that began.
    """

    def __init__(self, recipe, args, same=()):
        self.recipe = recipe
        self.args = args
        self.folder = args.output_dir or os.path.join("runs", f"{recipe}-{args.preset}")
        if not args.resume and _holds_work(self.folder):
            raise SystemExit(
                f"{self.folder} is not empty. Pass --resume to go on with it, or "
                "another --output-dir."
            )
        self.start = time.time()
        try:
            os.makedirs(self.folder, exist_ok=True)
            _lock(self.path("lock"))
            if not args.resume and os.path.exists(self.path("runs.json")):
                os.remove(self.path("runs.json"))
            self.runs = _append_run(
                self.path("runs.json"), recipe, args, ("preset", "seed", *same)
            )
        except OSError as error:
            raise SystemExit(
                f"Expected an --output-dir that can be written to. Received: {error}"
            ) from error

    def path(self, *names):
        """A path in the folder; its parent exists."""
        path = os.path.join(self.folder, *names)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def say(self, message):
        """Prints a line, with the minutes since the start."""
        print(f"[{(time.time() - self.start) / 60:5.1f} min] {message}", flush=True)

    def save(self, model, name):
        """Saves a model as <name>.keras; the file is complete or is not there."""
        path = self.path(f"{name}.keras")
        # Keras tells the kind of file by the end of its name.
        temporary = self.path(f"{name}.tmp.keras")
        model.save(temporary)
        os.replace(temporary, path)

    def done(self, name):
        """What `finish` wrote for a part of the recipe, or None."""
        path = self.path("parts", f"{name}.json")
        if not os.path.exists(path):
            return None
        with open(path) as file:
            return json.load(file)

    def finish(self, name, result):
        """Keeps the result of a part, so that a resumed recipe skips it."""
        _write_json(self.path("parts", f"{name}.json"), result)
        self._count_minutes()
        return result

    def agree(self, name, value):
        """Notes what the parts are made from; refuses if earlier ones had another."""
        known = self.done(name) or self.finish(name, value)
        if known != value:
            raise SystemExit(
                f"Parts in {self.folder} are made with {name} {known}. "
                f"Received: {value}. Pass another --output-dir."
            )

    def write_table(self, table, note=""):
        """Writes table.md, and prints it.

        Args:
            table: A Markdown table.
            note: What there is to say below it.
        """
        text = f"{table}\n\n{note}" if note else table
        with open(self.path("table.md"), "w") as file:
            file.write(f"{text}\n")
        print(text)

    def report(self, settings, result):
        """Writes report.json: the result and everything that made it."""
        self._count_minutes()
        _write_json(
            self.path("report.json"),
            {
                "provenance": {
                    **provenance(f"recipes.{self.recipe}"),
                    # A run that was stopped may have gone on with newer code.
                    "runs": self.runs,
                    "minutes": round(sum(run["minutes"] for run in self.runs), 1),
                },
                "settings": settings,
                "result": result,
            },
        )

    def _count_minutes(self):
        self.runs[-1]["minutes"] = round((time.time() - self.start) / 60, 1)
        _write_json(self.path("runs.json"), self.runs)


def provenance(module):
    """Command, commit, device and versions behind a result."""
    import keras

    backend = keras.backend.backend()
    return {
        "command": f"python -m {module} {shlex.join(_without_folders(sys.argv[1:]))}",
        "commit": _commit(),
        "date": datetime.date.today().isoformat(),
        "backend": backend,
        "device": _device(backend),
        "versions": {p: _version(p) for p in ("keras", backend, "numpy", "pymoo")},
    }


def settings_dict(settings):
    """A settings dataclass as JSON-able data."""
    return json.loads(json.dumps(dataclasses.asdict(settings), default=str))


def markdown_table(header, rows):
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(c) for c in line) + " |" for line in lines)


_FOLDERS = (
    "--data-dir",
    "--output-dir",
    "--supernet",
    "--network",
    "--tables",
    "--output",
    "--authors",
    "--checkpoint",
)


def _without_folders(words):
    kept, skip = [], False
    for word in words:
        # A folder's name says nothing on another machine.
        name, equal, _ = word.partition("=")
        named = equal and name in _FOLDERS
        kept.append("DIR" if skip else f"{name}=DIR" if named else word)
        skip = word in _FOLDERS
    return kept


def _device(backend):
    """The accelerator in use, or the processor."""
    engine = importlib.import_module(f"keras_spos.engine.{backend}")
    return gpu()["device"] if engine.is_asynchronous() else cpu_name()


def _version(package):
    for name in (package, f"{package}-cpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def _commit():
    """The commit of this code, or "unknown" where it is in no repository."""
    try:
        # An installed copy may lie in the repository of another project.
        _git("ls-files", "--error-unmatch", os.path.basename(__file__))
        commit = _git("rev-parse", "--short=12", "HEAD")
        dirty = _git("status", "--porcelain", "--untracked-files=no")
        return commit + ("+changes" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*words):
    folder = os.path.dirname(os.path.abspath(__file__))
    done = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _holds_work(folder):
    """Whether there is more than a run leaves that ended before it did anything.

    As one does that misses its data.
    """
    files = os.listdir(folder) if os.path.isdir(folder) else ()
    return bool(set(files) - {"lock", "runs.json"})


def _lock(path):
    """Refuses a folder that another process works in, as both would write its files.

    The system unlocks it when this process ends, however that is.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Other errors are of file systems that lock nothing.
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise SystemExit(
                f"{os.path.dirname(path)} is in use: another process writes to it. "
                "Wait for its end, or pass another --output-dir."
            ) from error


def _append_run(path, recipe, args, same):
    """Starts a run's entry: what it was, and the minutes until its last part ended."""
    runs = []
    if os.path.exists(path):
        with open(path) as file:
            runs = json.load(file)
    # Entries of earlier versions do not tell.
    owner = runs[-1].get("recipe", recipe) if runs else recipe
    if owner != recipe:
        raise SystemExit(
            f"{os.path.dirname(path)} is the output of recipes.{owner}. Expected "
            f"another --output-dir. Received: recipes.{recipe}"
        )
    same = {name: getattr(args, name) for name in same}
    for name, value in same.items():
        begun = runs[-1].get(name, value) if runs else value
        if begun != value:
            raise SystemExit(
                f"{os.path.dirname(path)} was begun with another {name}. Expected "
                f"--{name} {begun}, to go on with it, or another --output-dir. "
                f"Received: --{name} {value}"
            )
    today = datetime.date.today().isoformat()
    run = {"recipe": recipe, "commit": _commit(), "date": today, **same, "minutes": 0.0}
    runs.append(run)
    _write_json(path, runs)
    return runs


def _write_json(path, data):
    with open(f"{path}.tmp", "w") as file:
        json.dump(data, file, indent=1)
    os.replace(f"{path}.tmp", path)
