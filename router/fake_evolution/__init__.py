"""A fake Evolution API: what clients and receivers of the real one are tried against. No part of a node."""
