"""The OpenAI-compatible gateway: a stateless ASGI service before the engines. Imports neither Ray nor torch."""
