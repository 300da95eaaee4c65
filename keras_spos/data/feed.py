"""How is a set of images fed to a model? `training` and `evaluation` batches.

Example:
    >>> train = training(splits.train, 128, seed=0, augment="cifar",
    ...                  mean=splits.mean, std=splits.std)
    >>> net.fit(train, epochs=100, callbacks=[...])  # calls train.set_epoch(epoch)
"""

import os

import numpy as np

from keras_spos.data.augment import pad_crop_flip
from keras_spos.data.pixels import standardise
from keras_spos.data.sets import ArrayData, FileData
from keras_spos.optional import require


def training(
    data,
    batch_size,
    seed=0,
    augment="cifar",
    *,
    mean=None,
    std=None,
    size=224,
    batches_per_epoch=None,
    engine=None,
    workers=None,
    finish_on=None,
):
    """Feeds shuffled, augmented, standardised batches of one size.

    Order and augmentation of epoch e depend on (`seed`, e) only. Call
    ``set_epoch(e)`` of the result at each epoch's beginning, from a callback's
    `on_epoch_begin`; without it, passes over the data are counted, see
    `keras_spos.data.stream.Stream`.

    Args:
        data: `ArrayData`, `FileData` or a set that `imagenet` opened.
        batch_size: Images in a batch; a last one that is not full is dropped.
        seed: Non-negative integer.
        augment: "cifar" pads by an eighth (4 pixels of 32), crops and flips;
            "imagenet" is random resized crop, colour jitter and flip; None does
            nothing. Only `ArrayData` takes "cifar" and None.
        mean: Three channel means as fractions of 255; None is 0.
        std: Three standard deviations, likewise; None is 1.
        size: Height and width in pixels, for "imagenet".
        batches_per_epoch: How many batches an epoch has; None is all of them.
        engine: "pillow" or "tf.data", for `FileData`. Default: "pillow", the faster
            one, but on Windows. The two draw different random numbers.
        workers: What makes batches without "tf.data": threads for `ArrayData`, by
            default one; processes for photographs, by default one a core.
        finish_on: Where photographs that "pillow" cropped are resized and mirrored,
            and their colours jittered and standardised: "host", in the processes, or
            "device", where JAX computes, which takes 8-bit pixels. The same random
            numbers, the same images but for rounding to 8 bits. Default: "device" if
            JAX has an accelerator.

    Returns:
        An iterable of (float32 ``[batch_size, height, width, 3]``, int32
        ``[batch_size]``) that has a length and `set_epoch`: a `stream.Stream`, which is
        a `keras.utils.PyDataset`, or an `encoded.TensorFlowStream`. Images that were
        finished on a device are JAX arrays.

    Raises:
        ValueError: If an argument is none of the above or there is no full batch.
    """
    if augment not in ("cifar", "imagenet", None):
        raise ValueError(
            f"Expected augment 'cifar', 'imagenet' or None. Received: {augment!r}"
        )
    if augment != "imagenet" and not isinstance(data, ArrayData):
        raise ValueError(
            "Photographs differ in size; only augment='imagenet' makes them equal. "
            f"Received: augment={augment!r} for {type(data).__name__}"
        )
    if seed < 0:
        raise ValueError(f"Expected seed >= 0. Received: seed={seed}")
    uses_tf_data = _uses_tf_data(data, engine)
    photos_here = augment == "imagenet" and not uses_tf_data
    on_device = _finishes_on_device(finish_on, photos_here)
    if uses_tf_data:
        require("tensorflow")
        from keras_spos.data.encoded import training_stream

        return training_stream(
            data, batch_size, seed, size, mean, std, batches_per_epoch
        )
    from keras_spos.data.stream import Stream

    if augment == "imagenet":
        make_batch = _photos(data, True, size, None, mean, std, workers, on_device)
        image_shape = (size, size, 3)
        # Of the stream: a batch has processes of its own, and the next one gets those
        # that have nothing left to do for it.
        workers = 2
    else:
        workers = workers or 1
        make_batch = _arrays(data, augment == "cifar", mean, std)
        image_shape = data.images.shape[1:]
    return Stream(
        make_batch,
        image_shape,
        len(data),
        batch_size,
        seed,
        training=True,
        batches_per_epoch=batches_per_epoch,
        depth=workers + 1,
        workers=workers,
    )


def evaluation(
    data,
    batch_size,
    *,
    mean=None,
    std=None,
    size=224,
    short_side=256,
    engine=None,
    workers=None,
    finish_on=None,
):
    """Feeds every image once, in order, standardised; the last batch may be smaller.

    `ArrayData` is fed as it is. Photographs get their short side resized to
    `short_side` (bilinear) and a centre crop of `size`.

    Args:
        data: `ArrayData`, `FileData` or a set that `imagenet` opened.
        batch_size: Images in a batch.
        mean: Three channel means as fractions of 255; None is 0.
        std: Three standard deviations, likewise; None is 1.
        size: Height and width in pixels, for photographs.
        short_side: In pixels, at least `size`, for photographs.
        engine: As in `training`.
        workers: As in `training`.
        finish_on: As in `training`, of standardising alone.

    Returns:
        An iterable of (float32 ``[b, height, width, 3]``, int32 ``[b]``) that has a
        length, as `training`.

    Raises:
        ValueError: If an argument is none of the above or there is no image.
    """
    if not isinstance(data, ArrayData) and short_side < size:
        raise ValueError(
            "Expected short_side >= size. Received: "
            f"short_side={short_side}, size={size}"
        )
    uses_tf_data = _uses_tf_data(data, engine)
    photos_here = not uses_tf_data and not isinstance(data, ArrayData)
    on_device = _finishes_on_device(finish_on, photos_here)
    if uses_tf_data:
        require("tensorflow")
        from keras_spos.data.encoded import evaluation_stream

        return evaluation_stream(data, batch_size, size, short_side, mean, std)
    from keras_spos.data.stream import Stream

    if isinstance(data, ArrayData):
        make_batch = _arrays(data, False, mean, std)
        image_shape = data.images.shape[1:]
    else:
        make_batch = _photos(
            data, False, size, short_side, mean, std, workers, on_device
        )
        image_shape = (size, size, 3)
    return Stream(make_batch, image_shape, len(data), batch_size)


def _uses_tf_data(data, engine):
    if engine not in ("tf.data", "pillow", None):
        raise ValueError(
            f"Expected engine 'tf.data', 'pillow' or None. Received: {engine!r}"
        )
    if isinstance(data, ArrayData):
        if engine == "tf.data":
            raise ValueError("ArrayData is fed by numpy. Received: engine='tf.data'")
        return False
    if not isinstance(data, FileData):
        if engine == "pillow":
            raise ValueError(
                f"{type(data).__name__} is read by tf.data. Received: engine='pillow'"
            )
        return True
    # Where "pillow" cannot be.
    return engine == "tf.data" or (engine is None and os.name == "nt")


def _finishes_on_device(finish_on, is_possible):
    """Whether photographs go to the device before their colours are done."""
    if finish_on not in ("host", "device", None):
        raise ValueError(
            f"Expected finish_on 'host', 'device' or None. Received: {finish_on!r}"
        )
    if finish_on == "host" or (finish_on is None and not is_possible):
        return False
    import keras

    is_jax = keras.config.backend() == "jax"
    if finish_on == "device" and not (is_possible and is_jax):
        raise ValueError(
            "finish_on='device' is for photographs read by 'pillow', on JAX. Received: "
            f"Keras' backend {keras.config.backend()!r}"
            + ("" if is_possible else ", and data or an engine of another kind")
        )
    if finish_on is None and is_jax:
        import jax

        return jax.default_backend() != "cpu"
    return finish_on == "device"


def _arrays(data, augment, mean, std):
    def make_batch(indices, generator):
        images = data.images[indices]
        if augment:
            images = pad_crop_flip(images, generator, padding=images.shape[1] // 8)
        labels = data.labels[indices].astype(np.int32)
        return standardise(images, mean, std), labels

    return make_batch


def _photos(*arguments):
    from keras_spos.data.decode import photo_batches

    return photo_batches(*arguments)
