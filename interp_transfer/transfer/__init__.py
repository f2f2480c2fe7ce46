"""Transfer: probes, SAEs and activations moved through a mapper."""
