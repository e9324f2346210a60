"""What conceptatlas finds where the answer is known, or where others have published figures."""
