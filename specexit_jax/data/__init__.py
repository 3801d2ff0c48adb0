"""What models learn from and are judged by: benchmarks, own files, packed rows, graders, the reasoning world."""
