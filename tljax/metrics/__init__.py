"""Pure numpy functions of predictions; each returns its value with n and error."""
