"""Repairs: decided by a pure function, carried out in small steps, remembered and audited."""
