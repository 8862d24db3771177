"""Low-rank weights that stand in for arrays, trained beside a frozen model."""
