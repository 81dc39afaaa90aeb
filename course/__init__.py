"""What maintainers and teachers run on the notebooks: execution with a report, lint, mutation testing."""
