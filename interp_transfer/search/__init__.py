"""Search: sites, strengths, doses, and several vectors jointly."""
