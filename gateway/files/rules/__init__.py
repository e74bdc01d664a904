"""Pure rules of uploads: when an existing file can stand for a new one."""
