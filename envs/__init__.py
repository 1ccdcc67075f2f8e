"""Where agents act: reward and termination functions of the tasks."""
