"""The version of the package, and that of the interface that plugins are written for."""

__version__ = "0.1.0"
API_VERSION = 1
