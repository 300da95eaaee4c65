"""One script per paper table or figure, and a quickstart."""
