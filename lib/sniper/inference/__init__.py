"""From images to detections: forward per pyramid level, decode, merge over levels."""
