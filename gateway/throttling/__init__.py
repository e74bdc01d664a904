"""Request rates, the account's fair queue, and creates that are held."""
