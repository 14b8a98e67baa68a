"""Flower with a live page of the fleet's workers and batches."""
