"""Bytes in and bytes out; nothing here knows what a tensor file means."""
