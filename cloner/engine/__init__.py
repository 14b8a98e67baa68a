"""What speaks: engines behind one protocol. Only here is torch imported."""
