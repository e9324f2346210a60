"""Room llm."""
