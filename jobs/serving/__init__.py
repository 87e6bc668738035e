"""Serving: engines on Ray Serve, and the gateway before them. Gateway and engines speak what `protocol.py` holds."""
