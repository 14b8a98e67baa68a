"""Checks of takes, cheap enough to run on all: cut, silent, looping, clipped, too loud or quiet, too fast or slow."""
