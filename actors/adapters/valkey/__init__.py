"""The store: everything durable, on one Redis or Valkey. A script holds a transition whole."""
