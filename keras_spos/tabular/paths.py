"""Which row of a benchmark is a path, where rows list one option per decision?"""

import numpy as np

from keras_spos.tabular.archive import Archive

MACRO_OPTIONS = ("identity", "mbconv_k3_e3", "mbconv_k5_e6")


class PathTable(Archive):
    """A benchmark that lists every path of a space.

    Args:
        file: The file's name.
        folder: See `Archive`.
        array: Name of the array ``[rows, decisions]`` of options.
        options: Labels of the options, or the name of the array that holds them.
        required: See `Archive`.
        is_accuracy: See `Archive`.

    Attributes:
        paths: int64 array ``[rows, decisions]``: each row's options, numbered as the
            benchmark does.
        options: Their labels.
    """

    def __init__(self, file, folder, array, options, required, is_accuracy):
        super().__init__(file, folder, (array, *required), is_accuracy)
        self.paths = self.read(array).astype(np.int64)
        if isinstance(options, str):
            # A fixed-width string of bytes or of characters.
            options = self.read(options).astype(str).tolist()
        self.options = tuple(options)
        self._codes = self._encode(self.paths)
        self._order = np.argsort(self._codes)

    def __len__(self):
        return len(self.paths)

    def rows(self, space, paths):
        """Row numbers of paths of a space with the same decisions.

        The space's options are found by their labels, so they may be fewer, or in
        another order. Its decisions are those of the table, in the same order, whatever
        their names.

        Args:
            space: A `SearchSpace`.
            paths: A path, or an integer array ``[n, decisions]``.

        Returns:
            An int64 array ``[n]``.

        Raises:
            ValueError: The space has other decisions or options, or the benchmark
                lacks a path.
        """
        paths = space.validate(paths)
        labels = {label for d in space.decisions for label in d.options}
        unknown = sorted(labels - set(self.options))
        if space.num_decisions != self.paths.shape[1] or unknown:
            raise ValueError(
                f"{self.path.name} has {self.paths.shape[1]} decisions with the "
                f"options {self.options}. Received: {space.num_decisions} decisions, "
                f"unknown options {unknown}."
            )
        columns = [
            np.array([self.options.index(label) for label in d.options])[choices]
            for d, choices in zip(space.decisions, paths.T, strict=True)
        ]
        codes = self._encode(np.stack(columns, axis=1))
        known = self._codes[self._order]
        found = np.searchsorted(known, codes).clip(max=len(known) - 1)
        absent = np.flatnonzero(known[found] != codes)
        if len(absent):
            path = tuple(paths[absent[0]].tolist())
            raise ValueError(f"{self.path} does not list the path {path}.")
        return self._order[found]

    def _encode(self, paths):
        """One integer for each path."""
        return paths @ len(self.options) ** np.arange(paths.shape[1])


def nasbench201(folder=None):
    """NAS-Bench-201 (X. Dong and Y. Yang, ICLR 2020): 15,625 cells.

    Args:
        folder: The folder with nasbench201.npz. Default: `KERAS_SPOS_DATA`.

    Returns:
        A `PathTable`. Costs: ``read("cifar10_flops")``, ``read("cifar10_params")``;
        truth: ``accuracy("cifar10_test_200")``.
    """
    return PathTable(
        "nasbench201.npz",
        folder,
        array="ops",
        options="op_names",
        required=("op_names", "cifar10_flops", "cifar10_params", "cifar10_test_200"),
        is_accuracy=lambda name: "_test_" in name or "_valid_" in name,
    )


def nasbench_macro(folder=None):
    """NAS-Bench-Macro (X. Su et al., CVPR 2021): 6,561 chains of eight blocks.

    Args:
        folder: The folder with nasbench_macro.npz. Default: `KERAS_SPOS_DATA`.

    Returns:
        A `PathTable`. Costs: ``read("flops")``, ``read("params")``; truth:
        ``accuracy("mean_acc")``, the mean of ``accuracy("test_acc")``.
    """
    return PathTable(
        "nasbench_macro.npz",
        folder,
        array="arch",
        options=MACRO_OPTIONS,
        required=("flops", "params", "mean_acc", "test_acc"),
        is_accuracy=lambda name: name in ("mean_acc", "test_acc", "std"),
    )
