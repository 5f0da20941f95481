"""The version of the package, and that of the interface that plugins are written for."""

from importlib import metadata

__version__ = "0.1.0"
API_VERSION = 1


def find_version(distribution: str) -> str | None:
    """The installed version of a distribution; None if there is none."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
