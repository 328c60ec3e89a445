"""One concept a test, through the public surface only: read these to learn what the service does."""
