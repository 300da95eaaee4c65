"""What does a unit's forward pass on JAX leave for its backward pass?"""

import jax


@jax.tree_util.register_pytree_node_class
class Pullback:
    """What a pullback keeps of a forward pass, less what the caller has anyway.

    A compiled function gives no argument back, but a copy; a unit's input and weights,
    which most pullbacks want, would be copied in every step.
    """

    def __init__(self, kept, places, structure):
        self.kept = kept
        self.places = places
        self.structure = structure

    @classmethod
    def of(cls, pullback, known):
        """Leaves out what is one of the `known` values."""
        numbers = {id(value): number for number, value in enumerate(known)}
        leaves, structure = jax.tree.flatten(pullback)
        places = tuple(numbers.get(id(leaf)) for leaf in leaves)
        kept = [x for x, p in zip(leaves, places, strict=True) if p is None]
        return cls(kept, places, structure)

    def among(self, known):
        """Those of the `known` values that are wanted, in their order in the leaves."""
        return [known[place] for place in self.places if place is not None]

    def __call__(self, wanted, cotangents):
        """Gradients; `wanted` is what `among` gave."""
        kept, wanted = iter(self.kept), iter(wanted)
        leaves = [next(kept if place is None else wanted) for place in self.places]
        return jax.tree.unflatten(self.structure, leaves)(cotangents)

    def tree_flatten(self):
        """For JAX: what is traced, and the rest."""
        return (self.kept,), (self.places, self.structure)

    @classmethod
    def tree_unflatten(cls, rest, children):
        """The inverse."""
        return cls(*children, *rest)


def pull(pullback, known, cotangents):
    """Gradients; a function, which can be compiled."""
    return pullback(known, cotangents)


def pulled(record, cotangents, penalty_cotangent):
    """What `pull` takes: the pullback that a `forward` left, and the rest."""
    pullback, known, floats, has_penalty = record
    cotangents = [c if f else None for c, f in zip(cotangents, floats, strict=True)]
    return pullback, known, (cotangents, penalty_cotangent if has_penalty else None)
