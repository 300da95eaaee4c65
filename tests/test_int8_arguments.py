"""What `to_int8` takes, and what it refuses without leaving a file."""

import itertools

import keras
import numpy as np
import pytest
from colours import SHAPE, colours, images_of_labels, network
from keras import layers

from keras_spos import spaces, to_int8, to_onnx
from keras_spos.export import int8_arguments
from keras_spos.layers import PACT, QuantizedConv2D


def test_labels_of_any_shape_and_a_file_that_is_whole(tmp_path, monkeypatch):
    model, (x, y) = network(), colours(seed=1)
    path = tmp_path / "net.onnx"
    report = to_int8(model, x[:9], path, validation=(x, y))
    column = to_int8(model, x[:9], path, validation=(x, y[:, None]))
    assert column == report
    before = path.read_bytes()
    for wrong in (y[:1], np.eye(4)[y], y[:0]):
        with pytest.raises(ValueError, match="n integer labels. Received: shapes"):
            to_int8(model, x[:9], path, validation=(x, wrong))

    def fails(source, target, *_, **options):
        with open(target, "wb") as file:
            file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("onnxruntime.quantization.quantize_static", fails)
    with pytest.raises(OSError, match="No space"):
        to_int8(model, x[:9], path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_whose_accuracy_cannot_be_measured_is_not_left(tmp_path, monkeypatch):
    def fails(path, images):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("keras_spos.export.int8._run_onnx", fails)
    x, y = colours(9)
    with pytest.raises(RuntimeError, match="out of memory"):
        to_int8(network(), x, tmp_path / "net.onnx", validation=(x, y))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ["onnx", "tflite"])
def test_where_nothing_can_be_written(ending, tmp_path, monkeypatch):
    """It is noticed before any work."""
    monkeypatch.setattr(f"keras_spos.export.int8._write_{ending}", None)
    monkeypatch.setattr("keras_spos.export.onnx_export._write", None)
    model, x = network(), colours(3)[0]
    folder, temporary = (tmp_path / f"{name}.{ending}" for name in "ab")
    folder.mkdir()
    (tmp_path / f"b.{ending}.tmp").mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.iterdir())
    for path in (folder, temporary, tmp_path / "file" / f"c.{ending}"):
        for write in (lambda p: to_int8(model, x, p), lambda p: to_onnx(model, p)):
            with pytest.raises(OSError, match="can be written to. Received: "):
                write(path)
    assert sorted(tmp_path.iterdir()) == before


def test_images_that_come_in_batches(tmp_path):
    """Of a generator or tf.data, alone or with labels: as they do in an array."""
    import tensorflow as tf

    model, (x, y) = images_of_labels(), colours(12)

    def file(images):
        to_int8(model, images, tmp_path / "net.onnx")
        return (tmp_path / "net.onnx").read_bytes()

    expected = file(x)
    dataset = tf.data.Dataset.from_tensor_slices((x, y))
    for images in (
        tf.constant(x),
        list(x),
        dataset,
        dataset.batch(5),
        dataset.map(lambda image, label: image).batch(5),
        (x[i : i + 5] for i in range(0, 12, 5)),
    ):
        assert file(images) == expected
    endless = itertools.repeat(x[:1])
    with pytest.warns(UserWarning, match="one image, or equal ones") as warned:
        images = int8_arguments.calibration_images(endless, model)
    assert len(images) == 1000 and len(warned) == 1
    endless = itertools.repeat(x[:2])
    assert len(int8_arguments.calibration_images(endless, model)) == 1000
    for wrong, received in (
        (5, "int"),
        ("abc", "str"),
        ((x, y), "tuple"),
        ({"image": x}, "str"),
        (dataset.batch(5).batch(2), r"\(2, 5, 8, 8, 3\)"),
        (iter(()), "n=0"),
        (x[:0], "n=0"),
        (x[0], r"\(8, 8, 3\)"),
        (None, "NoneType"),
    ):
        with pytest.raises(ValueError, match=f"have shape .*Received: {received}"):
            to_int8(model, wrong, tmp_path / "other.onnx")
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_refused(tmp_path):
    model, x = network(), colours(3)[0]
    path = str(tmp_path / "net.onnx")
    with pytest.raises(ValueError, match="ending in .tflite or .onnx. Received: .*bin"):
        to_int8(model, x, str(tmp_path / "net.bin"))
    with pytest.raises(ValueError, match="writes TensorFlow Lite files"):
        to_int8(model, x, path, training=colours(3))
    with pytest.raises(ValueError, match=r"Received: \(3, 4, 8, 3\)"):
        to_int8(model, x[:, :4], path)
    inputs = keras.Input(SHAPE)
    quantized = keras.Model(inputs, QuantizedConv2D(2, 3, 2, 2, name="q")(inputs))
    inside = keras.Model(inputs, quantized(inputs))
    rounded = keras.Model(inputs, PACT(4, name="q")(inputs))
    for wrong in (quantized, inside, rounded):
        with pytest.raises(ValueError, match="'q' is quantized already"):
            to_int8(wrong, x, path)
    with pytest.raises(ValueError, match="finite representative images"):
        to_int8(model, np.full_like(x, np.nan), path)
    one = keras.Model(inputs, layers.Dense(1)(layers.Flatten()(inputs)))
    with pytest.raises(ValueError, match="of several outputs. Received: .* 1"):
        to_int8(one, x, path, validation=(x, np.zeros(3)))
    for pair in ((x[:, :4], [0, 1, 2]), (x[:0], [])):
        with pytest.raises(ValueError, match="n integer labels. Received: shapes"):
            to_int8(model, x, path, validation=pair)
    for pair in (x, (x,), (x, [0, 1, 4]), (x, [-1, 0, 0]), (x, [0.5, 1, 2]), iter([])):
        with pytest.raises(ValueError, match="two arrays for val|to be 0 to 3. Rec"):
            to_int8(model, x, path, validation=pair)
    with pytest.raises(ValueError, match="images and labels. Received: tuple of 3"):
        to_int8(model, x, path, validation=(x, np.zeros(len(x)), np.ones(len(x))))
    two = keras.Model(
        [inputs, other := keras.Input(SHAPE)], layers.Add()([inputs, other])
    )
    with pytest.raises(ValueError, match="model of one input. Received: .* of .'"):
        to_int8(two, x, path)
    with pytest.raises(ValueError, match="has been called on a batch"):
        to_int8(keras.Sequential([layers.Dense(2)]), x, path)
    net = spaces.shufflenet_v2(SHAPE, 4, stage_channels=(32,), stage_blocks=(1,))
    with pytest.raises(ValueError, match="Extract a subnet first"):
        to_int8(net, x, path)
    pixels = keras.Input(SHAPE, dtype="uint8")
    of_bytes = keras.Model(pixels, model(layers.Rescaling(1 / 255)(pixels)))
    fractions = np.full((3, *SHAPE), 0.5, "float32")
    whole = np.arange(3, dtype="uint8")[:, None, None, None] + np.zeros(SHAPE, "uint8")
    for given, pair in ((fractions, None), (whole, (fractions, [0, 1, 2]))):
        with pytest.raises(ValueError, match="uint8 is what.* float32 from 0.5 to"):
            to_int8(of_bytes, given, path, validation=pair)
    assert not list(tmp_path.iterdir())
