"""Prompts: texts, chats and contrast pairs, and how they are read from files."""
