"""Optimisers as chains of small transforms, their schedules, groups and averages."""
