"""What everything else stands on: whole files, paths, registries, sharing, queueing, torch's settings."""
