"""The process that hears takes with the models of `cloner/review/`. It sees no file of a batch."""
