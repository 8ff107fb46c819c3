"""What a trained run is used for: scoring a part, transcribing."""
