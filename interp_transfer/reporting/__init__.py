"""Reporting: what a person looks at afterwards."""
