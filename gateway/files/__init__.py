"""Files that teams upload, sent upstream once for equal bytes."""
