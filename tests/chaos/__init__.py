"""Faults: killed, frozen and restarted nodes, stores and webhooks, and what must still hold."""
