"""Is an optional package there? It is imported where it is used."""

import importlib


def require(module, packages=None):
    """Imports an optional dependency.

    Args:
        module: The module's name.
        packages: What to install for it, if that is named otherwise.

    Returns:
        The module.

    Raises:
        ImportError: Naming the pip command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        packages = packages or module
        raise ImportError(f"{module} is needed here: pip install {packages}") from error
