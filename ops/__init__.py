"""What keeps the platform alive: checks before a change, teardown, backup, health."""
