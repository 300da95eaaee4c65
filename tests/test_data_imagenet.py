import contextlib
import importlib.resources.abc
import io
import sys
import tarfile

import keras
import numpy as np
import pytest
from PIL import Image

from keras_spos import data

pytest.importorskip("tensorflow")
tfds = pytest.importorskip("tensorflow_datasets")

CLASSES = ["n01440764", "n01443537", "n01484850"]  # labels 0, 1, 2


@contextlib.contextmanager
def mock(num_examples=8):
    policy = tfds.testing.MockPolicy.USE_CODE
    with tfds.testing.mock_data(num_examples=num_examples, policy=policy):
        yield


def epoch(train, number):
    train.set_epoch(number)
    return [(np.asarray(x), np.asarray(y)) for x, y in train]


def test_mock_imagenet_end_to_end(tmp_path):
    with mock():
        splits = data.imagenet(validation_per_class=0, cache_dir=tmp_path)
        assert (len(splits.train), len(splits.validation)) == (8, 0)
        assert splits.num_classes == 1000
        train = data.training(
            splits.train, 3, augment="imagenet", mean=splits.mean, std=splits.std
        )
        assert len(train) == 2
        for x, y in epoch(train, 0):
            assert (x.shape, x.dtype) == ((3, 224, 224, 3), np.float32)
            assert set(y) <= set(splits.train.labels)
        batches = list(data.evaluation(splits.test, 5))
        assert [x.shape[0] for x, _ in batches] == [5, 3]
        labels = np.concatenate([y for _, y in batches])
        assert sorted(labels) == sorted(splits.test.labels)


def test_mock_cifar10(monkeypatch):
    monkeypatch.delenv("KERAS_SPOS_DATA", raising=False)
    with mock():
        splits = data.cifar10(validation_per_class=0)
    assert splits.train.images.shape == (8, 32, 32, 3)
    assert splits.train.images.dtype == np.uint8


def add_file(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def photograph(shade, height, width):
    file = io.BytesIO()
    Image.new("RGB", (width, height), (shade, shade, shade)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A tiny ImageNet, prepared by the real builder from tar files like the real ones.

    Training image k has the shade 10 k, so that pixels tell which image it is.
    """
    root = tmp_path_factory.mktemp("tfds")
    source = root / "downloads" / "manual"
    source.mkdir(parents=True)
    names = {}
    with tarfile.open(source / "ILSVRC2012_img_train.tar", "w") as outer:
        for label, name in enumerate(CLASSES):
            inner_file = io.BytesIO()
            with tarfile.open(fileobj=inner_file, mode="w") as inner:
                for i in range(6):
                    k = 6 * label + i
                    file_name = f"{name}_{i}.JPEG"
                    add_file(inner, file_name, photograph(10 * k, 30 + k, 50 - k))
                    names[file_name] = (k, label)
            add_file(outer, f"{name}.tar", inner_file.getvalue())
    with tarfile.open(source / "ILSVRC2012_img_val.tar", "w") as outer:
        for i in range(5):
            name = f"ILSVRC2012_val_{i + 1:08d}.JPEG"
            add_file(outer, name, photograph(40 * i, 40, 40))
    # Version 4.9.10 imports this without requiring it; the standard library's is alike.
    sys.modules.setdefault("importlib_resources", importlib.resources)
    builder = tfds.builder("imagenet2012", data_dir=root)
    builder.download_and_prepare(
        download_dir=root / "downloads",
        download_config=tfds.download.DownloadConfig(num_shards=4),
    )
    return root, names


@pytest.fixture
def splits(prepared, tmp_path):
    return data.imagenet(prepared[0], validation_per_class=2, cache_dir=tmp_path)


def test_the_split_is_exact_by_file_name(prepared, splits):
    names = prepared[1]
    train, held = (
        [n.decode() for n in p.names] for p in (splits.train, splits.validation)
    )
    assert sorted(train + held) == sorted(names)
    assert np.bincount(splits.validation.labels).tolist() == [2] * 3
    assert np.bincount(splits.train.labels).tolist() == [4] * 3
    for part in (splits.train, splits.validation):
        expected = [names[name.decode()][1] for name in part.names]
        assert part.labels.tolist() == expected


def test_the_stream_holds_the_split_and_nothing_else(prepared, splits):
    names = prepared[1]
    for part in (splits.train, splits.validation):
        expected = sorted(names[name.decode()] for name in part.names)
        kept = data.in_memory(part, size=8, short_side=8)
        number = np.rint(kept.images.mean(axis=(1, 2, 3)) / 10).astype(int)
        assert sorted(zip(number, kept.labels, strict=True)) == expected
    assert len(data.in_memory(splits.test, size=8, short_side=8)) == 5


def test_an_epoch_is_each_training_image_once(splits):
    train = data.training(splits.train, 4, augment="imagenet", size=8)
    epochs = [epoch(train, e) for e in (0, 1, 2, 1)]
    orders = [np.concatenate([y for _, y in batches]).tolist() for batches in epochs]
    for labels in orders:
        assert np.bincount(labels).tolist() == [4] * 3
    assert orders[0] != orders[1] or orders[1] != orders[2]
    for (x, _), (x_again, _) in zip(epochs[1], epochs[3], strict=True):
        np.testing.assert_array_equal(x, x_again)


def test_a_folder_of_the_same_files_is_split_the_same(prepared, splits, tmp_path):
    for name in prepared[1]:
        path = tmp_path / "train" / name.split("_")[0] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photograph(0, 9, 9))
    (tmp_path / "val" / CLASSES[0]).mkdir(parents=True)
    (tmp_path / "val" / CLASSES[0] / "1.JPEG").write_bytes(photograph(0, 9, 9))
    for seed, stream in ((0, splits), (1, None)):
        options = {"validation_per_class": 2, "seed": seed}
        stream = stream or data.imagenet(prepared[0], cache_dir=tmp_path, **options)
        folder = data.imagenet(tmp_path, **options)
        names = {path.split("/")[-1] for path in folder.validation.paths}
        assert names == {name.decode() for name in stream.validation.names}


def test_subsets_of_subsets(splits):
    subset = data.balanced_subset(splits.train, per_class=2)
    assert np.bincount(subset.labels).tolist() == [2] * 3
    assert set(subset.names) <= set(splits.train.names)
    kept = data.in_memory(subset, size=8, short_side=8)
    assert np.bincount(kept.labels).tolist() == [2] * 3


def test_the_index_is_read_once(prepared, tmp_path, monkeypatch):
    from keras_spos.data import tfds_stream

    first = data.imagenet(prepared[0], validation_per_class=2, cache_dir=tmp_path)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == [
        "imagenet2012-5.1.0-train.npz",
        "imagenet2012-5.1.0-validation.npz",
    ]
    monkeypatch.setattr(tfds_stream, "_read_index", None)
    again = data.imagenet(prepared[0], validation_per_class=2, cache_dir=tmp_path)
    assert again.validation.names.tolist() == first.validation.names.tolist()
    index = tmp_path / files[0]
    for content in (b"", index.read_bytes()[:200]):
        index.write_bytes(content)
        with pytest.raises(ValueError, match="train.npz is truncated"):
            data.imagenet(prepared[0], validation_per_class=2, cache_dir=tmp_path)


def test_fit_on_the_stream(splits):
    train = data.training(splits.train, 4, augment="imagenet", size=8)
    validation = data.evaluation(splits.validation, 4, size=8, short_side=8)
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    history = model.fit(train, validation_data=validation, verbose=0).history
    assert np.isfinite(history["val_loss"]).all()


def test_errors(splits, tmp_path):
    with pytest.raises(FileNotFoundError, match="neither place"):
        data.imagenet(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="read by tf.data"):
        data.training(splits.train, 4, augment="imagenet", engine="pillow")
