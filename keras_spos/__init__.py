"""Hardware-aware neural architecture search with Keras: SPOS and MixPath."""

from keras_spos import callbacks, data, layers, plots, ranking, search, spaces, tabular
from keras_spos.costs import CostTable, InfeasibleLimitError, Limit
from keras_spos.counting import (
    bitops_table,
    count_bitops,
    count_flops,
    count_params,
    flops_table,
    params_table,
)
from keras_spos.evaluation import Evaluator
from keras_spos.export import Int8Report, OnnxReport, to_int8, to_onnx
from keras_spos.layer_flops import register_flops
from keras_spos.layers import (
    ChoiceBlock,
    ElasticBlock,
    MultiPathBlock,
    PathGroup,
    ShadowBatchNormalization,
)
from keras_spos.losses import SmoothedCrossentropy
from keras_spos.multi_path_samplers import (
    BernoulliSampler,
    MultiPathSampler,
    OneShotSampler,
)
from keras_spos.population import score_all
from keras_spos.recalibration import recalibrate
from keras_spos.samplers import (
    CostRangeSampler,
    FairSampler,
    PathDropoutSampler,
    UniformSampler,
    WideningSampler,
)
from keras_spos.space import Decision, SearchSpace
from keras_spos.supernet import Supernet

__all__ = [
    "BernoulliSampler",
    "ChoiceBlock",
    "CostRangeSampler",
    "CostTable",
    "Decision",
    "ElasticBlock",
    "Evaluator",
    "FairSampler",
    "InfeasibleLimitError",
    "Int8Report",
    "Limit",
    "MultiPathBlock",
    "MultiPathSampler",
    "OneShotSampler",
    "OnnxReport",
    "PathDropoutSampler",
    "PathGroup",
    "SearchSpace",
    "ShadowBatchNormalization",
    "SmoothedCrossentropy",
    "Supernet",
    "UniformSampler",
    "WideningSampler",
    "bitops_table",
    "callbacks",
    "count_bitops",
    "count_flops",
    "count_params",
    "data",
    "flops_table",
    "layers",
    "params_table",
    "plots",
    "ranking",
    "recalibrate",
    "register_flops",
    "score_all",
    "search",
    "spaces",
    "tabular",
    "to_int8",
    "to_onnx",
]
