"""Pure rules of uploads: when an existing file can be used for a new one."""
