"""Fetching models from the Hugging Face hub."""
