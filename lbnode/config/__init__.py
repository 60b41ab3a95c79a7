"""The cluster file: its model, its loading, and the errors that say where and how to mend."""
