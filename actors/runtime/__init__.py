"""Mechanics of actors: mailboxes, supervision, time. Knows no domain, no store, no HTTP."""
