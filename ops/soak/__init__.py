"""Batch after batch through one standing fleet: does it hold on to anything?"""
