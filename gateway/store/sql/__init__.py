"""What both engines share: the steps of each role, their statements, and the threads that run them."""
