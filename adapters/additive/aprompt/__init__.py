"""APrompt."""
