"""Planning models and the laboratory. They see only the daemon's policies."""
