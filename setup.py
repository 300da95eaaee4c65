"""Packages, which pyproject.toml cannot find: hardware/ is keras_spos.hardware.

In a checkout it stands apart, to run on machines where Keras is not installed.
"""

from setuptools import find_packages, setup

hardware = [f"keras_spos.{name}" for name in find_packages(include=["hardware*"])]
setup(
    packages=[*find_packages(include=["keras_spos*"]), *hardware],
    package_dir={"keras_spos.hardware": "hardware"},
)
