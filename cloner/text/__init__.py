"""Texts before they are generated: how long they take, and where a long one is split."""
