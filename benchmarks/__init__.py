"""Programs of known rivals, raced."""
