"""What an operator sees of a server: a log line and metrics for each request, and traces where they are wanted."""
