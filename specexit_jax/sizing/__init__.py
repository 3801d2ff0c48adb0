"""Programs of real models without their weights: shapes, compilation ahead of time, memory."""
