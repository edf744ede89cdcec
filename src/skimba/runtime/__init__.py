"""The machine below: files that are whole or not there, and several processes on one job."""
