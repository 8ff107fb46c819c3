"""What a preparation keeps on disk, so that it needs little memory and can be interrupted."""
