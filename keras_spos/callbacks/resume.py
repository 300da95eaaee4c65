"""How does a killed training go on as if it had not been killed?"""

import itertools

import keras

from keras_spos.callbacks.beside import beside, get_state, set_state
from keras_spos.callbacks.checkpoints import Folder, as_stored, assign, values_of
from keras_spos.callbacks.identity import differences, identity, learning_rate


class Resume(keras.callbacks.Callback):
    """Makes the same command, run again after a kill, end as if it had not been killed.

    The weights, optimizer state, batch norm statistics, random seeds and logs at the
    end of training are those of a run that was never interrupted, bit for bit where the
    backend computes the same from the same (GPUs may add in another order each time).
    A training that is finished returns at once, with the trained weights; with more
    epochs, it goes on. One that `EarlyStopping` stopped is finished.

    Every checkpoint is one file, complete or not there. What it holds: all variables of
    the model, the optimizer and, within an epoch, the metrics; the logs of each epoch;
    what Keras' EarlyStopping, ReduceLROnPlateau, ModelCheckpoint and SwapEMAWeights
    remember; the search space, the seed, the loss and the optimizer's settings, by
    which a checkpoint of another run is refused. The first is written before the first
    step. Those callbacks stand before this one, and are the same when a run goes on.
    (What Keras does at the last epoch of a training, such as writing averages over the
    weights, is done when it is extended.)

    `keras.callbacks.BackupAndRestore` writes weights and epoch into two files, leaves
    out random seeds and logs, repeats the whole epoch on weights from within it, and
    deletes its files at the end.

    Put it last in the list of callbacks, as it saves what the others have logged. What
    `fit` shuffles itself (arrays, and batches of a `PyDataset` of your own, with
    ``shuffle=True``, its default) comes in another order after a kill: pass
    ``shuffle=False``, or `data` made by `keras_spos.data`.
    With ``steps_per_epoch``, data begins again at its first batch when a run goes on.

    Args:
        directory: A folder for this run's checkpoints and nothing else.
        data: The training data, if the order of its epochs is drawn from (seed, epoch):
            an object whose ``set_epoch(epoch)`` is called when an epoch begins.
        keep: How many checkpoints to keep. If the newest is damaged, training goes on
            from the one before, with a warning.
        save_freq: "epoch", or a number of batches after which to save as well. Going on
            within an epoch reads, and skips, the batches that were done.
        also: Callbacks whose ``get_state()``, JSON-able, is saved too, and given to
            ``set_state(state)``: a `SampledAccuracy`. What other callbacks of your own
            remember is not.

    Attributes:
        logs: A list of the logs (a dict) of each epoch, earlier runs' included.
    """

    def __init__(self, directory, data=None, keep=2, save_freq="epoch", also=()):
        super().__init__()
        if not isinstance(keep, int) or keep < 1:
            raise ValueError(f"Expected keep >= 1. Received: keep={keep}")
        if save_freq != "epoch" and (not isinstance(save_freq, int) or save_freq < 1):
            raise ValueError(
                "Expected save_freq to be 'epoch' or a number of batches. "
                f"Received: save_freq={save_freq!r}"
            )
        if data is not None and not hasattr(data, "set_epoch"):
            raise ValueError(
                "Expected data with a method set_epoch(epoch). "
                f"Received: {type(data).__name__}"
            )
        also = list(also)
        without = [type(c).__name__ for c in also if not hasattr(c, "get_state")]
        if without:
            raise ValueError(
                "Expected callbacks with get_state() and set_state(state). "
                f"Received: also={without}"
            )
        self.directory = directory
        self.data = data
        self.keep = keep
        self.save_freq = save_freq
        self.also = also
        self.logs = []
        if save_freq != "epoch":
            # Keras waits for each step of a model if any callback has this method.
            self.on_train_batch_end = self._after_batch

    @property
    def history(self):
        """Logs of all epochs, as `fit` returns them: a dict from name to list."""
        history = {}
        for logs in self.logs:
            for name, value in logs.items():
                history.setdefault(name, []).append(value)
        return history

    def on_train_begin(self, logs=None):
        """Restores the newest checkpoint, or writes the first."""
        model = self.model
        if not model.built:
            raise ValueError(
                f"Model {model.name!r} has no weights yet: call it once on a batch "
                "before `fit`."
            )
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        # What an exception may have left behind.
        model.train_function = getattr(model.train_function, "original", None) or (
            model.train_function
        )
        self._identity = identity(model)
        self._learning_rate = learning_rate(model.optimizer)
        self._folder = Folder(self.directory, self.keep)
        self._beside = beside(self)
        self._epoch_logs = None
        self._begun = None
        self.logs = []
        found = self._folder.read()
        if found is None:
            self._save(0, 0)
        else:
            self._restore(*found)

    def _restore(self, groups, data):
        model = self.model
        wrong = differences(data["identity"], self._identity)
        known = data["learning_rate"], data["current_learning_rate"]
        if self._learning_rate not in known:
            wrong.append(f"learning rate: {known[0]} there, {self._learning_rate} here")
        steps = data.get("steps"), self.params.get("steps")
        if data["batch"] and None not in steps and steps[0] != steps[1]:
            wrong.append(f"batches an epoch: {steps[0]} there, {steps[1]} here")
        if wrong:
            raise ValueError(
                f"Checkpoint {data['file']} belongs to another training. It differs "
                f"in: {'; '.join(wrong)}. Use the same settings to go on with it, or "
                "another directory."
            )
        epochs = self.params.get("epochs") or data["epoch"]
        if data["epoch"] + (data["batch"] > 0) > epochs:
            raise ValueError(
                f"Checkpoint {data['file']} has been trained for more than the "
                f"{epochs} epochs that are asked for. Use another directory."
            )
        assign(model.variables, groups["model"])
        assign(model.optimizer.variables, groups["optimizer"])
        if len(self.also) != len(data["also"]):
            raise ValueError(
                f"Checkpoint {data['file']} has the state of {len(data['also'])} "
                f"callbacks. Received: also={self.also}"
            )
        for callback, state in zip(self.also, data["also"], strict=True):
            callback.set_state(state)
        self._restore_beside(groups, data)
        self.logs = data["logs"]
        self._learning_rate = data["learning_rate"]
        # Where `fit` looks next.
        model._initial_epoch = epochs if data.get("stopped") else data["epoch"]
        if data["batch"]:
            self._begun = data["batch"], data["batch_logs"], groups["metrics"]
            self._rate_within = data["current_learning_rate"]

    def _restore_beside(self, groups, data):
        # Checkpoints of earlier versions have none.
        states = data.get("beside", [])
        there = [state["class"] for state in states]
        here = [get_state(callback)[0]["class"] for callback in self._beside]
        if "beside" in data and there != here:
            raise ValueError(
                f"Checkpoint {data['file']} has the state of the callbacks {there}. "
                f"Received: {here}. Use the same callbacks to go on with it, or "
                "another directory."
            )
        for i, state in enumerate(states):
            set_state(self._beside[i], state, groups[f"beside_{i}"])

    def on_epoch_begin(self, epoch, logs=None):
        """Tells the data which epoch this is."""
        self.model._initial_epoch = None  # Of this fit only.
        if self._epoch_logs is not None and len(self._epoch_logs) > len(self.logs[-1]):
            late = sorted(set(self._epoch_logs) - set(self.logs[-1]))
            raise ValueError(
                f"Resume must be last in the list of callbacks: {late} were logged "
                "after it had saved the epoch."
            )
        if self.data is not None:
            self.data.set_epoch(epoch)
        self._epoch = epoch
        self._done = 0
        if self._begun is not None:
            # Other callbacks have begun this epoch once more: a LearningRateScheduler
            # whose rate follows from the one before would apply it twice.
            if self._rate_within is not None:
                optimizer = self.model.optimizer
                optimizer = getattr(optimizer, "inner_optimizer", optimizer)
                optimizer.learning_rate = self._rate_within
            self._skip(*self._begun)
            self._begun = None

    def on_epoch_end(self, epoch, logs=None):
        """Saves."""
        self._epoch_logs = logs or {}
        self.logs.append(as_stored(self._epoch_logs))
        self._save(epoch + 1, 0)

    def on_train_end(self, logs=None):
        """Adds the epochs of earlier runs to what `fit` returns."""
        self.model._initial_epoch = None
        self.model.history.epoch = list(range(len(self.logs)))
        self.model.history.history = self.history

    def _after_batch(self, batch, logs=None):
        before, self._done = self._done, batch + 1
        # An epoch that is being stopped has no batches left to go on with.
        skipping = hasattr(self.model.train_function, "original")
        skipping = skipping or self.model.stop_training
        if not skipping and self._done // self.save_freq > before // self.save_freq:
            if hasattr(self.model, "jax_state_sync"):
                self.model.jax_state_sync()
            self._save(self._epoch, self._done, logs)

    def _save(self, epoch, batch, logs=None):
        model = self.model
        groups = {
            "model": values_of(model.variables),
            "optimizer": values_of(model.optimizer.variables),
            # `fit` resets metrics when an epoch begins.
            "metrics": values_of(model.metrics_variables) if batch else [],
        }
        states = []
        for i, callback in enumerate(self._beside):
            state, groups[f"beside_{i}"] = get_state(callback)
            states.append(state)
        data = {
            "identity": self._identity,
            "learning_rate": self._learning_rate,
            "current_learning_rate": learning_rate(model.optimizer),
            "logs": self.logs,
            "batch_logs": logs,
            "steps": self.params.get("steps"),
            "also": [callback.get_state() for callback in self.also],
            "beside": states,
            # Another callback may stop for a while, such as at a time limit.
            "stopped": any(getattr(c, "stopped_epoch", 0) for c in self._beside),
        }
        self._folder.write(epoch, batch, groups, data)

    def _skip(self, batches, logs, metrics):
        """Lets `fit` read the batches that were done, without training on them."""
        model = self.model
        original = model.train_function
        size = model.steps_per_execution
        left = -(-batches // size)
        # JAX: before `fit` takes the variables' values away.
        pending = not _assign_if_built(model.metrics_variables, metrics)

        def skip(*arguments):
            nonlocal left, pending
            *state, iterator = arguments
            read = list(itertools.islice(iterator, size))
            if not read:
                raise StopIteration
            if pending:  # TensorFlow: metrics get their variables from a batch.
                model._symbolic_build(data_batch=_without_optionals(read[0]))
                assign(model.metrics_variables, metrics)
                pending = False
            left -= 1
            if not left:
                model.train_function = original
            return (logs, *state) if state else logs

        skip.original = original
        model.train_function = skip


def _assign_if_built(variables, arrays):
    if len(variables) != len(arrays):
        return False
    assign(variables, arrays)
    return True


def _without_optionals(batch):
    # TensorFlow's loop wraps what a batch lacks, such as sample weights.
    return keras.tree.map_structure(lambda x: x if hasattr(x, "shape") else None, batch)
