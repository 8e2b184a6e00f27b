"""DNA: data, models and tasks."""
