"""What `sniper check-data` looks at: annotations, files, boxes, classes, chips and proposals."""
