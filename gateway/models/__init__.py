"""What is known of models: metadata, input schemas, and which model a version belongs to."""
