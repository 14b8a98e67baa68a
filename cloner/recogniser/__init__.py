"""Recognising what is said in a recording, by a model of Whisper on the CPU. Clients use it, and no worker."""
