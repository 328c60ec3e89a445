"""The version, in the one place that the build, the CLI and the HTTP edge read it from."""

__version__ = "0.1.0"
