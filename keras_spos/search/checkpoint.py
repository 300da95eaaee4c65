"""What a search writes down, so that a killed one goes on as if it had not been.

A checkpoint holds the search's settings and what was scored: generation, path and score
of each. There is no random state in it; see `loop`. The file is complete or not there,
and one that is damaged or of another search is refused, never overwritten.
"""

import hashlib
import json
import os

import numpy as np

from keras_spos.whole_file import check_writable, whole_file

_FORMAT = 1


class Checkpoint:
    """Scored paths in order, mirrored to a file.

    Args:
        path: The file, or None to keep everything in memory.
        space: The `SearchSpace`.
        settings: JSON-able data that must be the same when the file is read again.

    Attributes:
        generations: int64 array ``[n]``.
        paths: int64 array ``[n, num_decisions]``.
        scores: float64 array ``[n]``.
    """

    def __init__(self, path, space, settings):
        self.path = None if path is None else os.path.abspath(path)
        settings = {**settings, "space": json.loads(space.to_json())}
        self.settings = json.loads(json.dumps(settings, default=lambda x: x.item()))
        self.generations = np.empty(0, dtype=np.int64)
        self.paths = np.empty((0, space.num_decisions), dtype=np.int64)
        self.scores = np.empty(0)
        self._written = None  # What the file holds.
        if self.path is not None and os.path.exists(self.path):
            rows = _read(self.path, self.settings)
            self._extend(rows["generations"], rows["paths"], rows["scores"])
            self._written = _text(self.path)

    def generation(self, number):
        """Paths ``[n, d]`` and scores ``[n]`` of a generation, as far as scored."""
        rows = self.generations == number
        return self.paths[rows], self.scores[rows]

    def may_grow(self, generation):
        """Whether a generation can be incomplete: only the last one can."""
        return not np.any(self.generations > generation)

    def check_writable(self):
        """Raises an error if the file cannot be written, or is by now another's."""
        if self.path is None:
            return
        check_writable(self.path)
        if os.path.exists(self.path) and _text(self.path) != self._written:
            _read(self.path, self.settings)
            raise ValueError(
                f"Checkpoint {self.path} was changed while this search ran: another "
                "process goes on with it, too. Let one of them run alone."
            )

    def append(self, generation, paths, scores):
        """Adds what was scored and writes the file."""
        self.check_writable()  # Scoring takes long: another search may have begun.
        self._extend([generation] * len(paths), paths, scores)
        if self.path is not None:
            self._written = _write(self.path, self.settings, self._rows())

    def check_repeats(self, asked, paths, generation):
        """Raises ValueError unless `asked` begins with the checkpointed `paths`."""
        if not np.array_equal(asked[: len(paths)], paths):
            raise ValueError(
                f"Checkpoint {self.path} stops within generation {generation}, where "
                "this version of the software draws other paths. Remove the file to "
                "start again, or ask for fewer evaluations."
            )

    def _extend(self, generations, paths, scores):
        paths = np.asarray(paths, dtype=np.int64).reshape(-1, self.paths.shape[1])
        generations = np.asarray(generations, dtype=np.int64)
        self.generations = np.concatenate([self.generations, generations])
        self.paths = np.concatenate([self.paths, paths])
        self.scores = np.concatenate(
            [self.scores, np.asarray(scores, dtype=np.float64)]
        )

    def _rows(self):
        return {
            "generations": self.generations.tolist(),
            "paths": self.paths.tolist(),
            "scores": self.scores.tolist(),
        }


def describe_table(table):
    """Name and fingerprint of a `CostTable`, its metadata left out."""
    data = {k: v for k, v in table.to_dict().items() if k not in ("metadata", "unit")}
    return {"table": table.name, "sha256": _digest(data)}


def _digest(data):
    text = json.dumps(data, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _text(path):
    with open(path, errors="replace") as file:
        return file.read()


def _write(path, settings, rows):
    """Writes the file, and returns its text; a kill leaves the old one or the new."""
    data = {"format": _FORMAT, "settings": settings, "rows": rows}
    text = json.dumps({**data, "sha256": _digest(data)})  # `dump` encodes in Python.
    with whole_file(path) as temporary, open(temporary, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return text


def _read(path, settings):
    """Returns the rows of a checkpoint of a search with these settings."""
    try:
        with open(path) as file:
            data = json.load(file)
        expected = data.pop("sha256")
        saved, rows = data["settings"], data["rows"]
        intact = expected == _digest(data) and data["format"] == _FORMAT
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(_damaged(path)) from error
    if not intact:
        raise ValueError(_damaged(path))
    differences = [
        f"{key} ({_short(saved.get(key))} there, {_short(settings.get(key))} here)"
        for key in sorted(saved.keys() | settings.keys())
        if saved.get(key) != settings.get(key)
    ]
    if differences:
        raise ValueError(
            f"Checkpoint {path} belongs to another search. It differs in: "
            f"{'; '.join(differences)}. Use the same arguments to go on with it, or "
            "another file."
        )
    return rows


def _damaged(path):
    return (
        f"{path} is not a complete search checkpoint: it is truncated, was changed, or "
        "is another kind of file. Restore it from a copy, or remove it to start again."
    )


def _short(value):
    """One line of at most 80 characters."""
    if isinstance(value, dict):  # A space.
        value = [f"{d['name']}: {len(d['options'])}" for d in value["decisions"]]
        return f"{len(value)} decisions, {', '.join(value)}"[:80]
    if isinstance(value, list):
        return ", ".join(_short_table(item) for item in value) or "none"
    return str(value)[:80]


def _short_table(item):
    limit = f" <= {item['value']:g}" if "value" in item else ""
    return f"{item['table']}{limit} [{item['sha256'][:8]}]"
