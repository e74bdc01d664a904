"""The bytes of stored outputs: in a folder or in an S3-compatible bucket."""
