"""How good a student is: figures, calibration, and the report that its bundle holds."""
