"""The activation store: sharded safetensors on disk, with a manifest."""
