"""How is the next batch made while this one is used? In a thread, a few ahead.

A batch is asked for by epoch and index, so what was made for another epoch can never
be handed out.

Example:
    >>> ahead = LookAhead(make, depth=2)
    >>> ahead.get(epoch=0, index=0, length=10)   # make(0, 0); 1 and 2 are under way
"""

import concurrent.futures
import threading


class LookAhead:
    """Calls ``make(epoch, index)`` in threads, before it is asked for.

    Args:
        make: A function of two integers, without side effects.
        depth: How many results to hold ready.
        workers: How many threads make them.
    """

    def __init__(self, make, depth, workers=1):
        """Starts no thread yet."""
        self.make = make
        self.depth = depth
        self.workers = workers
        self._futures = {}
        self._lock = threading.Lock()
        self._pool = None

    def get(self, epoch, index, length):
        """Returns ``make(epoch, index)``; `length` is where the epoch ends."""
        wanted = [(epoch, i) for i in range(index, min(index + self.depth + 1, length))]
        # `tf.data` calls from threads of its own, now and then from two at once.
        with self._lock:
            if self._pool is None:
                self._pool = concurrent.futures.ThreadPoolExecutor(
                    self.workers, thread_name_prefix="keras_spos_data"
                )
            for key in set(self._futures) - set(wanted):
                self._futures.pop(key).cancel()
            for key in wanted:
                if key not in self._futures:
                    self._futures[key] = self._pool.submit(self.make, *key)
            # Taken out: a batch that failed is made again when asked for again.
            future = self._futures.pop(wanted[0])
        try:
            return future.result()
        except BaseException:
            # What failed may have failed those that are under way too.
            with self._lock:
                self._forget()
            raise

    def close(self):
        """Ends the threads, unless another reader is at it; `get` starts new ones."""
        # It may be called wherever Python collects a reader that was left half way,
        # even inside of `get`.
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._forget()
            if self._pool is not None:
                self._pool.shutdown(wait=False)  # What was asked for is still made.
                self._pool = None
        finally:
            self._lock.release()

    def _forget(self):
        for future in self._futures.values():
            future.cancel()
        self._futures.clear()
