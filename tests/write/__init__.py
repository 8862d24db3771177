"""Tests of planning a write, and of doing it."""
