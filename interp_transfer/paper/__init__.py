"""The paper's experiments again: what each is, what measures it, and a page with ours and the paper's numbers side by side."""
