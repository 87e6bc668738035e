"""What the platform counts and measures: one list of definitions, and the two ways in which they leave a process."""
