"""Small pictures for the pages, as SVG text that follows the page's colours."""
