"""What is observed of the platform, and what is wrong with it."""
