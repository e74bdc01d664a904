"""Request rates, held creates, and the account's rate shared fairly among teams."""
