"""From raw images to TFRecords."""
