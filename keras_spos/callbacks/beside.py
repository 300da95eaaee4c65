"""What do the other callbacks of a `fit` remember from epoch to epoch?

Keras' callbacks forget it when a training begins, so what goes on after a kill has to
be told.
"""

import inspect

import keras

from keras_spos.callbacks.checkpoints import with_dtype

_REMEMBERED = {
    keras.callbacks.EarlyStopping: ("wait", "stopped_epoch", "best", "best_epoch"),
    keras.callbacks.ModelCheckpoint: ("best",),
    keras.callbacks.ReduceLROnPlateau: ("wait", "cooldown_counter", "best"),
    keras.callbacks.SwapEMAWeights: ("_ema_weights_in_model",),
}


def beside(callback):
    """Those of Keras' callbacks that remember something, of the `fit` that is running.

    Args:
        callback: A callback, which `fit` is calling.

    Returns:
        A list of the callbacks that `fit` calls before it.

    Raises:
        ValueError: One of them is called after it.
    """
    # A callback is not given the list that it is in: it is that of the caller.
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList):
            break
        frame = frame.f_back
    else:
        return []
    if callback not in caller.callbacks:
        return []  # Inside another callback.
    place = caller.callbacks.index(callback)
    known = tuple(_REMEMBERED)
    late = [type(c).__name__ for c in caller.callbacks[place:] if isinstance(c, known)]
    if late:
        raise ValueError(
            f"Expected {type(callback).__name__} to be last in the list of callbacks. "
            f"Received: {late} after it."
        )
    return [c for c in caller.callbacks[:place] if isinstance(c, known)]


def get_state(callback):
    """What a callback remembers: a dict of plain values, and a list of arrays."""
    state = {"class": _kind(callback).__name__}
    for name in _REMEMBERED[_kind(callback)]:
        state[name] = getattr(callback, name, None)
    return state, list(getattr(callback, "best_weights", None) or [])


def set_state(callback, state, arrays):
    """Makes a callback remember what `get_state` returned."""
    for name in _REMEMBERED[_kind(callback)]:
        setattr(callback, name, state[name])
    if arrays:
        weights = zip(callback.model.weights, arrays, strict=True)
        callback.best_weights = [with_dtype(array, v.dtype) for v, array in weights]


def _kind(callback):
    return next(kind for kind in _REMEMBERED if isinstance(callback, kind))
