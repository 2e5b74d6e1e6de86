"""Durable LLM chat over plain HTTP: an answer is on disk before it is on screen."""

__version__ = "0.1.0"
