"""What tests stand on: child processes, real store servers, waiting with a deadline."""
