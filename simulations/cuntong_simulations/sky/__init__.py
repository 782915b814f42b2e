"""A satellite for the laboratory: channels, weather, and an emulator that stands between sender and dishes."""
