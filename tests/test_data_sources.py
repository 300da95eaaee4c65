import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from keras_spos import data


def write_npz(path, n_train=40, n_test=20, shape=(32, 32, 3)):
    generator = np.random.default_rng(0)
    arrays = {}
    for name, n in (("train", n_train), ("test", n_test)):
        arrays[f"x_{name}"] = generator.integers(0, 256, (n, *shape), dtype=np.uint8)
        arrays[f"y_{name}"] = np.arange(n) % 10
    np.savez(path, **arrays)
    return arrays


@pytest.fixture
def no_tensorflow_datasets(monkeypatch):
    # None in sys.modules makes the import fail, as where it is not installed.
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.delenv("KERAS_SPOS_DATA", raising=False)


def test_cifar10_from_a_file(tmp_path, monkeypatch):
    arrays = write_npz(tmp_path / "cifar10.npz")
    splits = data.cifar10(tmp_path, validation_per_class=2)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (20, 20, 20)
    assert np.bincount(splits.validation.labels).tolist() == [2] * 10
    np.testing.assert_array_equal(splits.test.images, arrays["x_test"])
    assert splits.num_classes == 10
    monkeypatch.setenv("KERAS_SPOS_DATA", str(tmp_path))
    again = data.cifar10(validation_per_class=2)
    np.testing.assert_array_equal(again.validation.images, splits.validation.images)


def test_cifar10_error_names_both_ways(tmp_path, no_tensorflow_datasets):
    with pytest.raises(FileNotFoundError) as caught:
        data.cifar10(tmp_path)
    for words in (str(tmp_path / "cifar10.npz"), "pip install", "KERAS_SPOS_DATA"):
        assert words in str(caught.value)
    with pytest.raises(FileNotFoundError, match="are not set"):
        data.cifar10()


@pytest.mark.parametrize("load", [data.cifar10, data.imagenet])
def test_a_download_is_announced(load, tmp_path, monkeypatch, capsys):
    def asked(*_, **__):
        printed.append(capsys.readouterr().out)
        raise SystemExit

    printed = []
    stub = types.SimpleNamespace(load=asked, builder=asked)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", stub)
    monkeypatch.setitem(sys.modules, "tensorflow", stub)
    with pytest.raises(SystemExit):
        load(tmp_path)
    assert "Asking tensorflow-datasets" in printed[0] and str(tmp_path) in printed[0]
    assert printed[0].count("\n") == 1


def test_imagenet_needs_tensorflow_datasets(tmp_path, no_tensorflow_datasets):
    with pytest.raises(ImportError, match="pip install tensorflow"):
        data.imagenet(tmp_path)


def test_npz_of_grey_images(tmp_path):
    arrays = write_npz(tmp_path / "grey.npz", shape=(8, 8))
    splits = data.npz(tmp_path / "grey.npz", validation_per_class=1)
    assert splits.train.images.shape == (30, 8, 8, 3)
    np.testing.assert_array_equal(splits.test.images[..., 2], arrays["x_test"])
    mean, std = data.channel_statistics(splits.train.images)
    assert (splits.mean, splits.std) == (mean, std)
    other = data.npz(tmp_path / "grey.npz", validation_per_class=1, seed=1)
    assert (other.validation.images != splits.validation.images).any()
    # A class may be of test images alone.
    np.savez(tmp_path / "grey.npz", **{**arrays, "y_test": np.arange(20) % 12})
    assert data.npz(tmp_path / "grey.npz", validation_per_class=1).num_classes == 12


def test_npz_errors(tmp_path):
    np.savez(tmp_path / "short.npz", x_train=np.zeros(1))
    with pytest.raises(ValueError, match="Missing: .*'x_test'.*'y_train'"):
        data.npz(tmp_path / "short.npz")
    (tmp_path / "half.npz").write_bytes((tmp_path / "short.npz").read_bytes()[:99])
    with pytest.raises(ValueError, match="half.npz is truncated or no .npz archive"):
        data.npz(tmp_path / "half.npz")
    write_npz(tmp_path / "few.npz")
    with pytest.raises(ValueError, match="it has 4"):
        data.npz(tmp_path / "few.npz", validation_per_class=4)


@pytest.mark.parametrize(
    "name, array, message",
    [
        ("x_test", np.zeros((20, 9, 8, 3), np.uint8), r"one size .*20, 9, 8, 3\)"),
        ("x_train", np.zeros((40, 8, 8, 3)), "x_train or y_train .* float64"),
        ("y_test", np.array([None] * 20), "x_test or y_test .* Object arrays"),
        ("y_train", np.arange(40) % 10 - 1, "labels from 0. Received: -1"),
        ("y_test", np.arange(20), "labels, 0 to 9, .*Received: 19"),
        ("y_test", np.eye(20, 10, dtype=int), r"one integer label .* \[20, 10\]"),
    ],
)
def test_a_file_that_is_not_as_expected_is_named(name, array, message, tmp_path):
    file = tmp_path / "cifar10.npz"
    np.savez(file, **{**write_npz(file, shape=(8, 8, 3)), name: array})
    with pytest.raises(ValueError, match=message) as raised:
        data.cifar10(tmp_path, validation_per_class=1)
    assert str(file) in str(raised.value)


def test_digits():
    splits = data.digits()
    assert splits.train.images.shape == (1197, 32, 32, 3)
    assert np.bincount(splits.validation.labels).tolist() == [30] * 10
    assert np.bincount(splits.test.labels).tolist() == [30] * 10
    other = data.digits(seed=1)
    np.testing.assert_array_equal(other.test.images, splits.test.images)
    assert (other.validation.images != splits.validation.images).any()
    # Each of the 8 x 8 values 0..16 became a block of 4 x 4 pixels 0..255.
    image = splits.train.images[0, :, :, 1]
    np.testing.assert_array_equal(image, image[::4, ::4].repeat(4, 0).repeat(4, 1))
    values = np.rint(np.arange(17) * 255 / 16)
    assert np.unique(splits.train.images).tolist() == values.tolist()


def test_digits_are_padded_in_the_middle():
    images = data.digits(size=21).train.images
    assert images.shape[1:] == (21, 21, 3)
    assert not images[:, :2].any() and not images[:, 18:].any()
    assert images[:, 2:18].any(axis=(0, 2, 3)).all()
    with pytest.raises(ValueError, match="size=7"):
        data.digits(size=7)


def write_images(root, classes, count, size=(10, 12)):
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(count):
            ending = ("jpg", "PNG", "jpeg")[i % 3]
            pixels = np.full((*size, 3), 20 * label + i, np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.{ending}")
        (root / name / "notes.txt").write_text("not an image")


def test_folder_without_parts(tmp_path):
    write_images(tmp_path, ["b", "a", "c"], count=9)
    splits = data.image_folder(tmp_path, validation_per_class=2, test_per_class=3)
    for part, count in ((splits.train, 4), (splits.validation, 2), (splits.test, 3)):
        assert np.bincount(part.labels).tolist() == [count] * 3
    # Classes are numbered by sorted names.
    for path, label in zip(splits.train.paths, splits.train.labels, strict=True):
        assert path.split("/")[-2] == "abc"[label]
    everything = [*splits.train.paths, *splits.validation.paths, *splits.test.paths]
    assert len(set(everything)) == 27
    again = data.image_folder(tmp_path, validation_per_class=2, test_per_class=3)
    assert again.validation.paths.tolist() == splits.validation.paths.tolist()


def test_folder_laid_out_like_imagenet(tmp_path):
    write_images(tmp_path / "train", ["a", "b"], count=5)
    write_images(tmp_path / "val", ["a", "b"], count=2)
    splits = data.image_folder(tmp_path, validation_per_class=2)
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [6, 4, 4]
    assert all("/train/" in path for path in splits.validation.paths)
    assert all("/val/" in path for path in splits.test.paths)
    same = data.imagenet(tmp_path, validation_per_class=2)
    assert same.validation.paths.tolist() == splits.validation.paths.tolist()
    other = data.imagenet(tmp_path, validation_per_class=2, seed=1)
    assert other.validation.paths.tolist() != splits.validation.paths.tolist()


def test_imagenets_own_test_images_have_no_labels(tmp_path):
    write_images(tmp_path / "train", ["a", "b"], count=5)
    write_images(tmp_path / "val", ["a", "b"], count=2)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "ILSVRC2012_test_00000001.JPEG").write_bytes(b"")
    splits = data.imagenet(tmp_path, validation_per_class=2)
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [6, 4, 4]
    assert all("/train/" in path for path in splits.validation.paths)
    assert all("/val/" in path for path in splits.test.paths)
    # Labelled ones, of another set, do not take the official set's place either.
    write_images(tmp_path / "test", ["a", "b"], count=1)
    again = data.imagenet(tmp_path, validation_per_class=2)
    assert again.test.paths.tolist() == splits.test.paths.tolist()
    assert again.validation.paths.tolist() == splits.validation.paths.tolist()


def test_folder_with_three_parts(tmp_path):
    for part, count in (("train", 5), ("val", 3), ("test", 2)):
        write_images(tmp_path / part, ["a", "b"], count)
    splits = data.image_folder(tmp_path)
    sizes = [len(p) for p in (splits.train, splits.validation, splits.test)]
    assert sizes == [10, 6, 4]
    assert all("/val/" in path for path in splits.validation.paths)


def test_folder_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        data.image_folder(tmp_path / "nowhere")
    (tmp_path / "empty" / "a").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no image"):
        data.image_folder(tmp_path / "empty")
    write_images(tmp_path / "set" / "train", ["a", "b"], count=3)
    with pytest.raises(FileNotFoundError, match="no test or val or validation"):
        data.image_folder(tmp_path / "set")
    write_images(tmp_path / "set" / "test", ["a", "z"], count=3)
    with pytest.raises(ValueError, match="lacks: .'z'"):
        data.image_folder(tmp_path / "set")


def test_a_folder_of_few_images(tmp_path):
    write_images(tmp_path, ["cat"], count=10)
    write_images(tmp_path, ["dog"], count=8)
    message = "_per_class=5 and test_per_class=4. Received: 8 in 'dog'"
    with pytest.raises(ValueError, match=message):
        data.image_folder(tmp_path, 5, 4)
    write_images(tmp_path / "parts" / "train", ["cat"], count=3)
    write_images(tmp_path / "parts" / "val", ["cat"], count=1)
    with pytest.raises(ValueError, match="out, validation_per_class=50. Received: 3"):
        data.image_folder(tmp_path / "parts")


def test_what_is_hidden_or_no_file_is_left_out(tmp_path):
    for part in ("train", "test"):
        write_images(tmp_path / part, ["a", "b"], count=3)
        (tmp_path / part / ".ipynb_checkpoints").mkdir()
        (tmp_path / part / "a" / "._0.jpg").write_bytes(b"of another system")
        (tmp_path / part / "a" / "zz.jpg").mkdir()
    splits = data.image_folder(tmp_path, validation_per_class=1)
    assert splits.num_classes == 2
    assert splits.train.labels.tolist() == [0, 0, 1, 1]
    assert splits.test.labels.tolist() == [0] * 3 + [1] * 3
    # The test set may lack a class, and training may not.
    for path in (tmp_path / "test" / "a").glob("?.*"):
        path.unlink()
    splits = data.image_folder(tmp_path, validation_per_class=1)
    assert splits.test.labels.tolist() == [1] * 3
    (tmp_path / "train" / "aa").mkdir()
    with pytest.raises(ValueError, match="Received: none in .'aa'."):
        data.image_folder(tmp_path, validation_per_class=1)
    with pytest.raises(ValueError, match="Received: none in .'aa'."):
        data.image_folder(tmp_path / "train", 1, 1)


def test_import_needs_neither_backend():
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "import types, importlib.util\n"
        # The parent package may import Keras; this asks about `data` alone.
        "parent = types.ModuleType('keras_spos'); parent.__path__ = ['keras_spos']\n"
        "sys.modules['keras_spos'] = parent\n"
        "import keras_spos.data\n"
        "heavy = {'keras', 'tensorflow', 'jax', 'sklearn', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    root = __file__.rsplit("/tests/", 1)[0]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
