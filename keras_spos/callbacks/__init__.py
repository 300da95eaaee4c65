"""Callbacks for long trainings: going on after a kill, and the accuracy of paths.

Example:
    >>> sampled = SampledAccuracy(score, paths=100, every=5)       # doctest: +SKIP
    >>> resume = Resume("run/", data=train, also=[sampled])        # doctest: +SKIP
    >>> net.fit(train, epochs=150, callbacks=[sampled, resume])    # doctest: +SKIP
    >>> resume.history["sampled_accuracy_mean"]                    # doctest: +SKIP
"""

from keras_spos.callbacks.grow_path_dropout import GrowPathDropout
from keras_spos.callbacks.resume import Resume
from keras_spos.callbacks.sampled_accuracy import SampledAccuracy
from keras_spos.callbacks.sampled_tau import SampledTau

__all__ = ["GrowPathDropout", "Resume", "SampledAccuracy", "SampledTau"]
