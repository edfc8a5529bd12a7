"""The page that `rag serve` shows at "/": files that are sent as they are."""
