"""One kind of chart a file. A file that is added here is drawn on the page: no other file names it."""
