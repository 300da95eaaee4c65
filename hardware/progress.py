"""Shows how far a long task is and when it ends: tqdm's bar, or lines without it."""

import time


def progress(total, label, verbose=True):
    """A context manager with `update()`; `total` is the number of updates."""
    if verbose:
        try:
            from tqdm.auto import tqdm
        except ImportError:
            return _Lines(total, label)
        return tqdm(total=total, desc=label)
    return _Lines(total, label, every=None)


class _Lines:
    """Prints a line every tenth of the way."""

    def __init__(self, total, label, every=0.1):
        self.total, self.label, self.every = total, label, every
        self.done, self.printed = 0, 0.0

    def __enter__(self):
        self.start = time.time()
        return self

    def __exit__(self, *_):
        pass

    def update(self, n=1):
        self.done += n
        share = self.done / max(1, self.total)
        if self.every and (share >= self.printed + self.every or share >= 1):
            self.printed = share
            left = (time.time() - self.start) * (1 / share - 1)
            print(f"{self.label}: {self.done}/{self.total}, {left:.0f} s left")
