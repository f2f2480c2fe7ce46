"""Fine-tuning: full or LoRA, resumable."""
