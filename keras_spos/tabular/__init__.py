"""What do tabulated benchmarks say about an architecture, and when was it read?

NAS benchmarks train every network of a space and publish the accuracies. They judge
what a supernet predicts, so the predictions must not know them: a table opens with
architectures and costs alone, reads an accuracy only when it is asked for, and lists
what was read in `reads`.

The files are numpy archives in a folder of yours. Accuracies are in percent, but for
NAS-Bench-101's.

    nasbench201.npz     ops uint8 [15625, 6] (edges 0-1, 0-2, 1-2, 0-3, 1-3, 2-3),
                        op_names [5]; for each of the datasets cifar10, cifar100 and
                        imagenet16_120: <dataset>_flops and <dataset>_params int64
                        [15625]; <dataset>_test_200, <dataset>_test_12 and
                        <dataset>_valid_12 float64 [15625] (the epochs of training)
    nasbench_macro.npz  arch uint8 [6561, 8] (0 identity, 1 and 2 the bottlenecks);
                        flops and params int64 [6561]; mean_acc float64 [6561], the mean
                        of test_acc float64 [6561, 3]
    nasbench101.npz     adjacency uint8 [423624, 7, 7], upper triangular; ops int8
                        [423624, 7] (0 input, 1 conv3x3, 2 conv1x1, 3 maxpool3x3, 4
                        output, -1 unused); num_vertices uint8 and params int32
                        [423624]; test_acc_108 float32 [423624], a fraction

Example:
    >>> table = nasbench201("tables/")                             # doctest: +SKIP
    >>> scores = score(paths)                                      # doctest: +SKIP
    >>> rows = table.rows(net.space, paths)                        # doctest: +SKIP
    >>> report(scores, table.accuracy("cifar10_test_200", rows))   # doctest: +SKIP
"""

from keras_spos.tabular.graphs import GraphTable, nasbench101
from keras_spos.tabular.paths import PathTable, nasbench201, nasbench_macro

__all__ = ["GraphTable", "PathTable", "nasbench101", "nasbench201", "nasbench_macro"]
