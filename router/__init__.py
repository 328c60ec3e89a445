"""The node: HTTP edge, settings, command line and the one place (`app`) that joins all sides."""
