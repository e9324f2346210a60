"""Room prompts."""
