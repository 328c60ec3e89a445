"""The outside behind the ports: the store, outgoing HTTP, and the embedded engine."""
