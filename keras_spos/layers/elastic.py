"""What a layer with several widths or bit widths offers: a plain layer for each.

An elastic layer owns weights for the largest setting. ``at(width=..., bits=...)`` gives
the plain layer of one setting, whose weights are leading slices of the elastic layer's:
of those that `weights_at` lists (SPOS, section 3, "Channel Number Search").
"""


class ElasticLayer:
    """Base of elastic layers; comes before the Keras layer that it varies."""

    def at(self, width=None, bits=None):
        """The plain layer, not built, at a width and at a pair of bit widths.

        Args:
            width: Index of the width; None is the largest.
            bits: Index of the pair of bit widths; None for layers without.
        """
        raise NotImplementedError

    def weights_at(self, bits=None):
        """This layer's weights, in the order of those of the plain layer."""
        return self.weights
