"""Measured ratios: the supernet against a fixed subnet and against the alternatives."""
