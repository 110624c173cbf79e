"""What the commands share: command line, options, run folder, loop, report, stopping, resuming."""
