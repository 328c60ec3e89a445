"""Peers adapter: the authenticated connections between the nodes of a cluster."""
