"""Recognising what is said in a recording, by a model of Whisper on the CPU. Only clients and reviewers use it."""
