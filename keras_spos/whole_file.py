"""Writes a file that is whole, or not there at all.

Example:
    >>> with whole_file("best.onnx") as temporary:                 # doctest: +SKIP
    ...     write(temporary)
"""

import contextlib
import os


@contextlib.contextmanager
def whole_file(path):
    """Yields a path to write to, and moves what is there to `path` if nothing fails.

    Folders that are missing are created. What cannot be written to is noticed at once,
    not after the work.

    Args:
        path: The file; if there is one already and something fails, it stays.
    """
    check_writable(path)
    temporary = f"{path}.tmp"
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)


def check_writable(path):
    """Raises OSError if a path cannot be written to; creates folders that are missing.

    Args:
        path: The file; if there is one already, it stays.
    """
    temporary = f"{path}.tmp"
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        if os.path.isdir(path):
            raise IsADirectoryError("that is a folder")
        with open(temporary, "ab"):
            pass
        os.remove(temporary)
    except OSError as error:
        raise OSError(
            f"Expected a path that can be written to. Received: {path} ({error})"
        ) from error
