"""What answers over HTTP: the start page, the check of Host and Origin that every server of ours stands behind."""
