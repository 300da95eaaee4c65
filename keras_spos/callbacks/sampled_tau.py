"""How well does a supernet rank while it trains?"""

from keras_spos.callbacks.sampled_accuracy import SampledAccuracy
from keras_spos.ranking import kendall_tau


class SampledTau(SampledAccuracy):
    """Ranks the same architectures at the ends of epochs.

    Adds what `SampledAccuracy` does to the logs and, if the truth is given,
    "sampled_tau". Nothing in a training should look at that: a schedule or a checkpoint
    chosen by it has seen the truth. To be sure, leave the truth out and ask `taus` for
    it after the training.

    Args:
        evaluator: An `Evaluator` of the supernet that is trained.
        paths: Paths, an integer array ``[n, decisions]``, or how many to draw.
        truth: `n` numbers, or None.
        every: Score after every so many epochs.
        seed: Seed of the paths that are drawn.
    """

    def __init__(self, evaluator, paths=100, truth=None, every=1, seed=0):
        super().__init__(evaluator, paths, every, seed)
        if truth is not None and len(truth) != len(self.paths):
            raise ValueError(
                f"Expected a truth for each of the {len(self.paths)} paths. "
                f"Received: {len(truth)}."
            )
        self.truth = truth

    def on_epoch_end(self, epoch, logs=None):
        """Scores and ranks the paths."""
        super().on_epoch_end(epoch, logs)
        scored = bool(self.epochs) and self.epochs[-1] == epoch
        if scored and self.truth is not None and logs is not None:
            logs["sampled_tau"] = kendall_tau(self.scores[-1], self.truth)

    def taus(self, truth=None):
        """Kendall's tau after each of `epochs`.

        Args:
            truth: `n` numbers. Defaults to what `__init__` was given.
        """
        truth = self.truth if truth is None else truth
        return [kendall_tau(scores, truth) for scores in self.scores]
