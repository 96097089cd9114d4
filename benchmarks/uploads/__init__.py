"""What uploads and downloads cost the server, and what becomes of an upload that is cut off."""
