"""The loop: order, updates, what is frozen or held, what is watched, kept, and continued."""
