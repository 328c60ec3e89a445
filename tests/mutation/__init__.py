"""Mutation: each fence, dedupe and repair check is taken out of the code once, and a test must notice."""
