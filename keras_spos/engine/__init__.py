"""Runs one path of a supernet at the cost of one subnet.

How it works, in ten lines. The supernet is cut into *units*: runs of fixed layers, and
the options of its searchable layers. Each unit is compiled once as three functions
(forward with residuals, backward, optimizer update) that take the weights as
arguments, so that equal blocks share them. Python picks the path and calls the
functions of the units on it, forward and then in reverse. There is no `switch`:
nothing of an option that was not picked is traced, computed, stored or updated, and
a function is traced when its unit is first picked. One step makes three calls per
unit (two on JAX, where the update is part of the backward pass's); they are queued, so
that Python is ahead of them. What is specific to a backend sits in
`engine/tensorflow*.py` and `engine/jax*.py`; each has a `Runner` of the same methods.
"""

from keras_spos.engine.engine import Engine

__all__ = ["Engine"]
