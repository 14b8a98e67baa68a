"""Flower with a page that shows the fleet: its workers, its batches, live."""
