"""The bytes of copies (the `OutputStore` role of `gateway.ports`): in a folder, or in an S3-compatible bucket."""
