"""Deeper checks of takes, by models: whose voice a take has, and how natural it sounds. Scores alone, without files."""
