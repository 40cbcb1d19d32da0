"""The composition root: settings -> stores -> applications -> a process that runs until it is told to stop."""
