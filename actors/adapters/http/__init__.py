"""HTTP adapter: the only way out to webhooks, with the address guard where it dials."""
