"""Before a GPU is booked: which layout fits and how long its steps take, from hardware figures."""
