"""Telling people, once, through channels that may themselves be broken."""
